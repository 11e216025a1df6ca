"""The store: what is written is read, and no kill or damage goes unseen."""

import json
import os
import time

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from stepaudio_jax.audio import mel
from stepaudio_jax.core import lengths
from stepaudio_jax.data import features
from stepaudio_jax.data.schema import Audio
from stepaudio_jax.data.store import Chunk, Store
from tests.data.rows import WIDTH, Encoder, write_tone


def chunk(rows: int, value: float, samples: int = 7) -> Chunk:
  return Chunk(np.full((rows, 2), value, np.float32), samples)


def files(folder) -> dict[str, bytes]:
  """What a folder holds, apart from files that were still being written."""
  found = (p for p in sorted(folder.iterdir()) if p.suffix != ".partial")
  return {path.name: path.read_bytes() for path in found}


@pytest.fixture
def written(tmp_path):
  """A store of two packs: clips a and b, then clip c."""
  store = Store(tmp_path, "kind")
  store.write({"b": [chunk(3, 1.0, 10), chunk(1, 2.0, 11)], "a": [chunk(2, 3.0)]})
  store.write({"c": [chunk(4, 4.0)]})
  return tmp_path / "kind"


def reopened(folder) -> Store:
  return Store(folder.parent, folder.name)


class TestStore:
  def test_chunks_come_back_as_they_were(self, written):
    store = reopened(written)
    assert store.shape("b") == ((3, 10), (1, 11))
    first, second = store.read("b")
    np.testing.assert_array_equal(first.rows, np.full((3, 2), 1.0))
    np.testing.assert_array_equal(second.rows, np.full((1, 2), 2.0))
    assert (first.samples, second.samples) == (10, 11)
    assert first.rows.dtype == np.float32
    np.testing.assert_array_equal(store.read("a")[0].rows, np.full((2, 2), 3.0))
    assert len(store) == 3

  def test_missing_is_sorted_and_each_once(self, written):
    assert reopened(written).missing(["z", "a", "y", "z"]) == ["y", "z"]
    with pytest.raises(KeyError, match=r"clip z is not in .*fill the store first"):
      reopened(written).read("z")

  def test_kinds_do_not_meet(self, written):
    assert len(Store(written.parent, "other encoder")) == 0

  def test_other_processes_packs_are_seen_after_reload(self, written):
    store = reopened(written)
    reopened(written).write({"d": [chunk(1, 5.0)]})
    assert "d" not in store
    store.reload()
    assert "d" in store

  def test_writing_the_same_clips_gives_the_same_files(self, written):
    before = files(written)
    reopened(written).write({"c": [chunk(4, 4.0)]})
    assert files(written) == before


class TestDamage:
  @pytest.mark.parametrize(
    "stage", ["half an array", "array without index", "half index"]
  )
  def test_a_kill_while_writing_leaves_the_store_valid(self, written, stage):
    """The files that a kill leaves at each stage of the write."""
    whole = files(written)
    reopened(written).write({"d": [chunk(9, 6.0)]})
    new = {n: b for n, b in files(written).items() if n not in whole}
    for name in new:
      (written / name).unlink()
    array, index = sorted(new, reverse=True)
    if stage == "half an array":
      (written / f"{array}.1.partial").write_bytes(new[array][:50])
    else:
      (written / array).write_bytes(new[array])
    if stage == "half an index":
      (written / f"{index}.1.partial").write_bytes(new[index][:20])
    store = reopened(written)
    assert store.missing("abcd") == ["d"]
    store.write({"d": [chunk(9, 6.0)]})
    assert files(written) == whole | new
    np.testing.assert_array_equal(
      reopened(written).read("d")[0].rows, np.full((9, 2), 6)
    )

  @pytest.mark.parametrize("renames", [0, 1])
  def test_a_pack_appears_whole_or_not_at_all(self, written, monkeypatch, renames):
    """Killed at its first or second rename, a write has added no clip."""
    before = files(written)
    store, left = reopened(written), [renames]
    rename = type(epath.Path(written)).replace

    def mortal(path, target):
      if not left[0]:
        raise Killed
      left[0] -= 1
      return rename(path, target)

    with monkeypatch.context() as patch:
      patch.setattr(type(epath.Path(written)), "replace", mortal)
      with pytest.raises(Killed):
        store.write({"d": [chunk(9, 6.0)]})
    again = reopened(written)
    assert again.missing("abcd") == ["d"]
    added = set(files(written)) - set(before)
    assert len(added) == renames
    assert all(name.endswith(".npy") for name in added)  # without index: no pack

  def test_what_a_kill_left_aside_is_swept_up_after_a_day(self, written):
    for name, age_s in (("old", 90_000), ("new", 0)):
      path = written / f"{name}.npy.partial"
      path.write_bytes(b"half")
      os.utime(path, (time.time() - age_s,) * 2)
    reopened(written)
    assert [p.name for p in written.glob("*.partial")] == ["new.npy.partial"]

  def pack_of(self, folder, key):
    (path,) = (
      p for p in folder.glob("*.json") if key in json.loads(p.read_text())["clips"]
    )
    return path

  def test_a_truncated_pack_is_computed_anew_with_a_warning(self, written, caplog):
    array = self.pack_of(written, "a").with_suffix(".npy")
    array.write_bytes(array.read_bytes()[:-1])
    store = reopened(written)
    assert store.missing("abc") == ["a", "b"]
    assert array.name in caplog.text
    store.write({"a": [chunk(2, 3.0)], "b": [chunk(4, 9.0)]})
    assert reopened(written).missing("abc") == []

  def test_a_lost_array_and_a_broken_index_are_computed_anew(self, written, caplog):
    self.pack_of(written, "a").with_suffix(".npy").unlink()
    self.pack_of(written, "c").write_text('{"bytes": 1')
    assert reopened(written).missing("abc") == ["a", "b", "c"]
    assert caplog.text.count("computed anew") == 2

  def test_a_flipped_bit_is_an_error_once_and_missing_afterwards(self, written):
    array = self.pack_of(written, "c").with_suffix(".npy")
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    store = reopened(written)
    assert store.read("a")[0].samples == 7  # the other pack is sound
    with pytest.raises(ValueError, match=f"clip c in .*{array.name} is damaged"):
      store.read("c")
    assert "c" not in store
    assert reopened(written).missing("abc") == ["c"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Audio]:
  """Five tones of several lengths; "long" has two chunks of 25 s and 1 s."""
  folder = tmp_path_factory.mktemp("clips")
  sizes = {"a": 1600, "b": 4000, "c": 1700, "d": 8000, "long": 416_000}
  for number, (name, samples) in enumerate(sizes.items()):
    write_tone(folder / f"{name}.wav", samples, 200.0 + 100 * number)
  return {n: Audio(str(folder / f"{n}.wav"), None, None, f"example {n}") for n in sizes}


def short(clips):
  return {name: clip for name, clip in clips.items() if name != "long"}


class Killed(Exception):
  pass


class Mortal(Encoder):
  """Dies after so many calls; its last bits depend on the company in the batch."""

  def __init__(self, calls: int):
    super().__init__()
    self.calls = calls

  def __call__(self, mel_BLM, sample_count_B):
    if len(self.shapes) == self.calls:
      raise Killed
    frames_BUE, count_B = super().__call__(mel_BLM, sample_count_B)
    return frames_BUE + 1e-6 * mel_BLM.sum(dtype=np.float32), count_B


class TestFill:
  def test_mels_are_those_of_audio_mel(self, clips, tmp_path):
    store = Store(tmp_path, features.MEL_KIND)
    features.fill_mels(store, clips)
    assert store.shape("b") == ((lengths.padded_frames(4000), 4000),)
    tone = 0.3 * np.sin(2 * np.pi * 300.0 * np.arange(4000) / 16_000)
    # The file holds 16 bits: 2e-5 of full scale, far under the speech band's floor.
    np.testing.assert_allclose(
      store.read("b")[0].rows[:, :20], mel.log_mel(tone)[:, :20], atol=0.02
    )

  def test_frames_are_each_clips_own(self, clips, tmp_path):
    store, mels = Store(tmp_path, "encoder"), Store(tmp_path, features.MEL_KIND)
    features.fill_mels(mels, clips)
    features.fill_frames(store, clips, Encoder(), batch_size=2)
    assert store.missing(clips) == []
    for name in clips:
      assert len(store.read(name)) == len(mels.read(name))
      for frames, heard in zip(store.read(name), mels.read(name), strict=True):
        # 4000 samples: 25 frames at 100 Hz, (25 + 1) // 4 = 6 at 25 Hz.
        count = (-(-heard.samples // 160) + 1) // 4
        assert len(frames.rows) == count + count % 2  # two for every audio token
        np.testing.assert_array_equal(
          frames.rows[:count], heard.rows[: 4 * count : 4, :WIDTH], err_msg=name
        )
    assert [chunk.samples for chunk in store.read("long")] == [400_000, 16_000]

  def test_few_shapes_and_always_whole_batches(self, clips, tmp_path):
    encode = Encoder()
    features.fill_frames(
      Store(tmp_path, "e"), clips, encode, batch_size=2, buckets=(40, 2502, 128)
    )
    # 12 and 13, 27 and 52, 102 and 2502 padded mel frames go together.
    assert encode.shapes == [(2, 40, 128), (2, 128, 128), (2, 2502, 128)]

  @pytest.mark.parametrize(("calls", "missing"), [(1, "abcd"), (2, "d")])
  def test_a_fill_that_was_killed_ends_with_the_same_bytes(
    self, clips, tmp_path, calls, missing
  ):
    options = {"batch_size": 2, "clips_per_pack": 3, "buckets": (128,)}
    whole, killed = Store(tmp_path, "whole"), Store(tmp_path, "killed")
    features.fill_frames(whole, short(clips), Mortal(99), **options)
    with pytest.raises(Killed):
      features.fill_frames(killed, short(clips), Mortal(calls), **options)
    assert killed.missing(short(clips)) == list(missing)
    again = Store(tmp_path, "killed")
    features.fill_frames(again, short(clips), Mortal(99), **options)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")

  def test_nothing_is_computed_twice(self, clips, tmp_path):
    encode, store = Encoder(), Store(tmp_path, "e")
    features.fill_frames(store, short(clips), encode, batch_size=4)
    features.fill_frames(store, short(clips), encode, batch_size=4)
    assert len(encode.shapes) == 1

  def test_a_pack_ends_after_so_many_clips_or_so_much_sound(
    self, clips, tmp_path, monkeypatch
  ):
    def packs(name, **options):
      features.fill_mels(Store(tmp_path, name), clips, **options)
      indices = sorted((tmp_path / name).glob("*.json"))
      return {"".join(json.loads(path.read_text())["clips"]) for path in indices}

    assert packs("one") == {"abcdlong"}
    assert packs("clips", clips_per_pack=2) == {"ab", "cd", "long"}
    # 1600 + 4000 + 1700 samples reach 7000; the 8000 of "d" do alone.
    monkeypatch.setattr(features, "PACK_SAMPLES", 7000)
    assert packs("samples") == {"abc", "d", "long"}

  def test_tails_that_are_left_out_are_one_warning(self, tmp_path, caplog):
    sizes = {"x": 400_000 + 320, "y": 400_000 + 321, "z": 400_000 + 1}
    tails = {}
    for name, samples in sizes.items():
      write_tone(tmp_path / f"{name}.wav", samples)
      tails[name] = Audio(str(tmp_path / f"{name}.wav"), None, None, f"example {name}")
    features.fill_mels(Store(tmp_path, "mels"), tails)
    (warning,) = caplog.messages
    assert warning.startswith("the last samples of 2 clips, too few for an audio token")
    assert warning.endswith("(at most 320 each), are left out: example x, example z")

  def test_frames_of_one_encoder_in_two_types_do_not_meet(self):
    kinds = {features.frames_kind("abc", kind) for kind in (jnp.float32, jnp.bfloat16)}
    assert kinds == {"frames-float32-abc", "frames-bfloat16-abc"}
    assert features.frames_kind("abc", "float32") in kinds

  def test_kept_mels_are_read(self, clips, tmp_path):
    mels = Store(tmp_path, features.MEL_KIND)
    ones = Chunk(np.ones((lengths.padded_frames(1600), 128), np.float32), 1600)
    mels.write({"a": [ones]})
    store = Store(tmp_path, "e")
    features.fill_frames(
      store, {"a": clips["a"]}, Encoder(), batch_size=1, mel_store=mels
    )
    np.testing.assert_array_equal(store.read("a")[0].rows, np.ones((2, WIDTH)))

  @pytest.mark.parametrize(
    ("wrong", "message"),
    [
      (lambda f, n: (f, n + 1), "example a: the encoder gave 3 frames of 1600 samp"),
      (lambda f, n: (f * np.nan, n), "example a: the encoder's frames are not finite"),
    ],
  )
  def test_what_the_encoder_gives_is_checked(self, clips, tmp_path, wrong, message):
    store = Store(tmp_path, "e")
    with pytest.raises(ValueError, match=message):
      features.fill_frames(
        store, {"a": clips["a"]}, lambda *x: wrong(*Encoder()(*x)), batch_size=1
      )
    assert store.missing("a") == ["a"]

  def test_a_chunk_longer_than_every_bucket(self, clips, tmp_path):
    with pytest.raises(ValueError, match="example long: a chunk of 2502 mel frames"):
      features.fill_frames(
        Store(tmp_path, "e"), clips, Encoder(), batch_size=9, buckets=(128, 256)
      )
