"""What is heard instead."""

import hashlib
import pathlib

import numpy as np
import pytest
import soundfile
from etils import epath

from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.audio import pitch
from stepaudio_jax.evals.parts import controls
from stepaudio_jax.evals.parts import items as items_lib
from tests.audio.test_pitch import voice
from tests.evals import quiz, worlds


@pytest.fixture
def items(tmp_path):
  return quiz.read(quiz.write(tmp_path / "data"))


def samples(talk):
  return [
    audio_io.read(audio.source, audio.start_s, audio.end_s) for audio in talk.audio
  ]


def shown(talk):
  return [block for message in talk.row["messages"] for block in message["content"]]


def test_silence_is_as_long_and_has_no_sound(items, tmp_path):
  hear = controls.heard("silence", items, tmp_path / "clips")
  for n, item in enumerate(items):
    (quiet,) = samples(hear(item.talk))
    assert len(quiet) == 4_000 + 100 * n
    assert not quiet.any()


def test_a_span_is_as_long_as_itself(tmp_path):
  worlds.write_noise(tmp_path / "a.wav", 16_000, 0)
  block = {"type": "audio", "path": "a.wav", "start_s": 0.25, "end_s": 0.5}
  human = {"role": "human", "content": [block, worlds.text("Who?")]}
  talk = items_lib.talk("t", [human], "here", str(tmp_path))
  item = items_lib.Item(talk, None)
  hear = controls.heard("silence", [item], tmp_path / "clips")
  assert len(samples(hear(talk))[0]) == 4_000
  assert "start_s" not in shown(hear(talk))[0]
  assert shown(hear(talk))[1] == worlds.text("Who?")


def test_swapped_clips_are_those_of_an_item_with_another_answer(items, tmp_path):
  hear = controls.heard("swapped", items, tmp_path / "clips")
  by_path = {item.talk.audio[0].source: item for item in items}
  for item in items:
    talk = hear(item.talk)
    other = by_path[talk.audio[0].source]
    assert other.gold != item.gold
    assert shown(talk)[0]["path"] == talk.audio[0].source
    assert talk.id == item.id == talk.audio[0].name


def test_where_all_answers_are_one_the_clips_are_still_others(tmp_path):
  items = quiz.read(quiz.write(tmp_path / "data", ("low",) * 5))
  found = controls.partners(items)
  assert all(found[item.id].id != item.id for item in items)
  # Everybody is somebody's partner: the drawn order goes round.
  assert {other.id for other in found.values()} == {item.id for item in items}
  assert found == controls.partners(items[::-1])


def talk_of(folder, name, clips, answer):
  blocks = [{"type": "audio", "path": clip} for clip in clips]
  human = {"role": "human", "content": [*blocks, worlds.text("Well?")]}
  return items_lib.Item(items_lib.talk(name, [human], "here", str(folder)), answer)


def test_a_recording_that_is_asked_about_twice_is_not_swapped_with_itself(tmp_path):
  asked = [("low", "x"), ("angry", "x"), ("calm", "x"), ("high", "y")]
  items = [
    talk_of(tmp_path, f"i{n}", [clip], answer) for n, (answer, clip) in enumerate(asked)
  ]
  found = controls.partners(items)
  assert {name: other.id for name, other in found.items() if name != "i3"} == {
    "i0": "i3",
    "i1": "i3",
    "i2": "i3",
  }
  with pytest.raises(ValueError, match="needs other clips than those of 'i"):
    controls.partners(items[:3])


def test_an_item_of_text_alone_has_nothing_to_swap(tmp_path):
  items = [talk_of(tmp_path, "text", [], "one")]
  items += [talk_of(tmp_path, name, [name], "two") for name in "ab"]
  hear = controls.heard("swapped", items, tmp_path / "clips")
  assert hear(items[0].talk) == items[0].talk
  assert controls.sources("swapped", items)["text"] == ()


def test_one_item_has_nobody_to_swap_with(items, tmp_path):
  with pytest.raises(
    ValueError, match="swapping needs 2 items with clips; there are 1"
  ):
    controls.heard("swapped", items[:1], tmp_path)


def test_flat_speech_has_the_samples_of_audio_pitch(tmp_path):
  glide_N = voice(np.linspace(120, 240, 16_000))
  soundfile.write(tmp_path / "g.wav", glide_N, 16_000, subtype="FLOAT")
  block = {"type": "audio", "path": "g.wav"}
  talk = items_lib.talk(
    "t", [{"role": "human", "content": [block]}], "h", str(tmp_path)
  )
  hear = controls.heard("flat", [items_lib.Item(talk, None)], tmp_path / "clips")
  (flat,) = samples(hear(talk))
  wanted = pitch.flattened(samples(talk)[0])
  np.testing.assert_allclose(flat, wanted, atol=1 / 32_000)  # 16 bits
  assert not np.allclose(flat, samples(talk)[0], atol=0.01)


def test_a_clip_of_bytes_becomes_a_file_that_can_be_played(tmp_path):
  path = worlds.write_noise(tmp_path / "a.wav", 4_000, 0)
  block = {"type": "audio", "bytes": path.read_bytes()}
  human = {"role": "human", "content": [block]}
  talk = items_lib.talk("t", [human], "here", str(tmp_path))
  hear = controls.heard("audio", [items_lib.Item(talk, None)], tmp_path / "clips")
  kept = pathlib.Path(shown(hear(talk))[0]["path"])
  assert kept.parent == tmp_path / "clips"
  assert kept.read_bytes() == path.read_bytes()
  assert kept.name == hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def test_the_sound_itself_is_untouched(items, tmp_path):
  hear = controls.heard("audio", items, epath.Path(tmp_path / "clips"))
  assert all(hear(item.talk) is item.talk for item in items)
  assert not (tmp_path / "clips").exists()
