"""Batches of prompts in declared shapes: which, in what order, and how full."""

import contextlib
import itertools
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from stepaudio_jax.data import loader, pipeline
from stepaudio_jax.data.buckets import Alike, Buckets, smallest
from stepaudio_jax.data.collate import Limits
from stepaudio_jax.text import tokenizer as tokenizer_lib
from tests.data.rows import (
  WIDTH,
  Encoder,
  audio_row,
  text_row,
  write_rows,
  write_tone,
)

EACH, SIZE = 30, 4  # prompts of a set, of a batch
EPOCH = 2 * EACH // SIZE


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """As many prompts with a clip as without, of 12 to 160 tokens."""
  folder, rng = tmp_path_factory.mktemp("prompts"), np.random.default_rng(0)
  heard, read = [], []
  for k in range(EACH):
    clip = write_tone(folder / f"{k}.wav", int(rng.integers(1600, 32_000)))
    heard.append(audio_row(f"h{k}", clip, "low " * int(rng.integers(1, 90)), "A."))
    read.append(text_row(f"t{k}", "low " * int(rng.integers(1, 140)), "A."))
  write_rows(folder / "heard.jsonl", heard)
  write_rows(folder / "read.jsonl", read)
  c = ConfigDict()
  c.mix = {"heard": 1.0, "read": 1.0}
  c.options = {
    name: {"set": "dialogue", "path": str(folder / f"{name}.jsonl")} for name in c.mix
  }
  c.max_tokens, c.max_clips, c.max_clip_s, c.encode_batch = 176, 1, 2.0, 8
  c.history = "answer"
  c.buckets, c.clip_buckets_s = (48, 80, 120), (0.0, 1.0)
  return c


@pytest.fixture(scope="module")
def prompts(data, tmp_path_factory):
  cache = tmp_path_factory.mktemp("cache")

  def read(**changes):
    c = data.copy_and_resolve_references()
    c.update(changes)
    return loader.prompts(
      c,
      "train",
      cache=cache,
      tokenizer=tokenizer_lib.load("tiny"),
      encode=Encoder(),
      frames_kind="encoder",
      encoder_width=WIDTH,
    )

  return read


def fed(feed, count=EPOCH, start=None, seed=0):
  """Batches with the ids of their rows, and the position behind them."""
  iterator = loader.batches(feed, seed, SIZE, pack=False)
  with contextlib.closing(iterator):
    if start is not None:
      iterator.set_state(json.loads(start))
    found = list(itertools.islice(iterator, count))
    return found, json.dumps(iterator.get_state())


def shape(batch):
  return batch.token_BT.shape[1], batch.frames_BRUE.shape[2]


def padding(found):
  used = sum(int((batch.segment_BT > 0).sum()) for batch, _ in found)
  return 1 - used / sum(batch.segment_BT.size for batch, _ in found)


def test_an_epoch_comes_in_the_declared_shapes_and_is_little_padded(prompts):
  """Clips of 1 s: 25 frames, and one more to be even; of 2 s: 50; without: 0."""
  feed = prompts()
  assert feed.buckets == Buckets((48, 80, 120, 176), (0, 26, 50))
  found, _ = fed(feed)
  for batch, _ in found:
    longest = int((batch.segment_BT > 0).sum(1).max())
    clip = int(batch.frame_count_BR.max())
    tokens = next(n for n in (48, 80, 120, 176) if n >= longest)
    assert shape(batch) == (tokens, next(n for n in (0, 26, 50) if n >= clip))
  ids = [name for _, names in found for name in names]
  assert len(set(ids)) == len(ids) == 2 * EACH
  once, _ = fed(prompts(buckets=(), clip_buckets_s=()))
  assert {shape(batch) for batch, _ in once} == {(176, 50)}
  print(f"padding {padding(found):.1%} in buckets, {padding(once):.1%} without")
  assert padding(found) <= 0.3 < padding(once)


def test_a_row_holds_the_same_in_every_shape(prompts):
  def by_id(found):
    out = {}
    for batch, ids in found:
      for row, name in enumerate(ids):
        n, frames = (batch.segment_BT[row] > 0).sum(), batch.frame_count_BR[row, 0]
        kept = (batch.token_BT, batch.position_BT, batch.audio_BT)
        rows = [x[row, :n].tolist() for x in kept]
        out[name] = (*rows, batch.frames_BRUE[row, 0, :frames].tolist())
        assert (batch.segment_BT[row, n:] == 0).all()
    return out

  assert by_id(fed(prompts())[0]) == by_id(
    fed(prompts(buckets=(), clip_buckets_s=()))[0]
  )


@pytest.mark.parametrize("stop", [1, 9, EPOCH])
def test_stop_and_resume_is_never_stopped(prompts, stop):
  whole, _ = fed(prompts(), EPOCH + 5)
  first, state = fed(prompts(), stop)
  rest, _ = fed(prompts(), EPOCH + 5 - stop, state)
  assert [ids for _, ids in (*first, *rest)] == [ids for _, ids in whole]
  assert [ids for _, ids in fed(prompts(), 9, seed=1)[0]] != [
    ids for _, ids in whole[:9]
  ]


def test_processes_agree_on_the_shape_without_a_word(prompts):
  feed = prompts()
  stream = Alike(
    pipeline.mixture(feed, 0), feed.bucket, batch_size=SIZE, batches=EPOCH, seed=0
  )
  parts = []
  for index in range(2):
    kind = {"process_index": index, "process_count": 2, "shape": feed.shape}
    iterator = pipeline.batches(feed, stream, batch_size=SIZE, **kind)
    with contextlib.closing(iterator):
      parts.append([batch for batch, _ in itertools.islice(iterator, EPOCH)])
  whole = [batch for batch, _ in fed(feed)[0]]
  assert [shape(b) for b in parts[0]] == [shape(b) for b in parts[1]]
  assert [shape(b) for b in parts[0]] == [shape(b) for b in whole]
  for one, other, both in zip(*parts, whole, strict=True):
    rows = np.concatenate([one.token_BT, other.token_BT])
    np.testing.assert_array_equal(rows, both.token_BT)


def test_batches_of_one_bucket_by_hand():
  """Windows of 2 batches of 3: of "abcabcabc…" each has aab bcc, in either order."""
  stream = [f"{'abc'[k % 3]}{k}" for k in range(21)]
  ours = Alike(stream, lambda item: item[0], batch_size=3, batches=2, seed=0)
  batches = [[ours[k] for k in range(start, start + 3)] for start in range(0, 21, 3)]
  kinds = ["".join(item[0] for item in batch) for batch in batches]
  windows = [tuple(kinds[k : k + 2]) for k in range(0, 6, 2)]
  assert {tuple(sorted(each)) for each in windows} == {("aab", "bcc")}
  assert len(ours) == 21
  assert batches[-1] == ["a18", "b19", "c20"]  # a window of its own
  for k in range(0, 18, 6):
    told = [*batches[k // 3], *batches[k // 3 + 1]]
    assert sorted(told) == sorted(stream[k : k + 6])
  long = Alike(stream * 40, lambda item: item[0], batch_size=3, batches=2, seed=0)
  firsts = [long[k][0] for k in range(0, 600, 6)]
  assert 20 < firsts.count("a") < 80  # neither always comes first


def test_a_batch_takes_the_larger_of_each_length():
  """One example is the longest in tokens, another in its clip."""
  known, whole = Buckets((10, 20, 30), (0, 8)), Limits(30, 4, 8)
  assert known.limits(whole, [(20, 0), (3, 1)]) == Limits(20, 4, 8)
  assert known.limits(whole, [(21, 0), (3, 0)]) == Limits(30, 4, 0)
  assert known.limits(whole, []) == Limits(10, 4, 0)
  assert known.count == 6
  assert [smallest((4, 8), n, 20) for n in (0, 4, 5, 8, 9)] == [4, 4, 8, 8, 20]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"buckets": (96, 48)}, r"data.buckets=\(96, 48\) must be lengths that ascend"),
    ({"buckets": (48, 48)}, r"data.buckets=\(48, 48\)"),
    ({"buckets": (48, 257)}, "at most 176"),
    ({"clip_buckets_s": (1.0, 2.5)}, r"data.clip_buckets_s=\(1.0, 2.5\).*most 2.0"),
    ({"clip_buckets_s": (-1.0,)}, r"\(-1.0,\)"),
    ({"buckets": ("long",)}, "data.buckets=.*must be lengths that ascend"),
    ({"buckets": (64.5,)}, r"data.buckets=\(64.5,\).*176, whole numbers"),
  ],
)
def test_lengths_that_do_not_ascend_are_named(prompts, changes, message):
  with pytest.raises(ValueError, match=message):
    prompts(**changes)
