"""Long dialogues: what is told, asked, ruled and felt, turn by turn."""

import collections
import itertools

import pytest

from stepaudio_jax.data import jsonl, schema
from stepaudio_jax.data.world import gold, phrases, talks, words
from stepaudio_jax.data.world.build import read_jsonl

TURNS = 8


@pytest.fixture(scope="module")
def planned():
  return talks.planned(64, TURNS, seed=0)


@pytest.fixture(scope="module")
def truths(planned):
  return [talks.truth(talk) for talk in planned]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
  """Two dialogues of three turns, spoken."""
  return talks.write(tmp_path_factory.mktemp("talks"), dialogues=2, turns=3, seed=1)


def test_one_voice_in_one_room_through_a_whole_dialogue(planned):
  for talk in planned:
    clips = [turn.take.clip for turn in talk.turns]
    assert len(clips) == TURNS
    assert len({clip.utterances[0].voice for clip in clips}) == 1
    assert len({(clip.noise_snr_db, clip.reverb_s) for clip in clips}) == 1
  assert len({talk.turns[0].take.voices for talk in planned}) == 7


def test_what_is_asked_for_was_told_so_many_turns_ago(planned, truths):
  for talk, truth in zip(planned, truths, strict=True):
    for k, (turn, one) in enumerate(zip(talk.turns, truth["turns"], strict=True)):
      if one["task"] == "emotion":
        assert (one["slot"], one["distance"]) == (None, None)
        assert one["answer"] == turn.take.labels["emotion"] == one["emotion"]
        continue
      told = talk.turns[k - one["distance"]].take
      assert one["distance"] >= 1
      assert one["answer"] in told.transcript.split()
      # Nowhere else: the question has one answer.
      slots = [name for t in talk.turns for name, _ in t.take.facts]
      assert slots.count(one["slot"]) == 1
      at_start = turn.text in phrases.MEMORY_QUESTIONS[one["slot"]]
      assert at_start == (one["distance"] == k)


def test_facts_and_moods_are_asked_for_equally_often(truths):
  for k in range(TURNS):
    tasks = collections.Counter(truth["turns"][k]["task"] for truth in truths)
    wanted = {"emotion": 32, "memory": 32} if k else {"emotion": 64}
    assert tasks == wanted
  for truth in truths:
    asked = collections.Counter(
      one["slot"] for one in truth["turns"] if one["task"] == "memory"
    )
    assert sum(asked.values()) in (3, 4)
    assert max(asked.values()) <= 2
  distances = {one["distance"] for truth in truths for one in truth["turns"]}
  assert distances == {None, *range(1, TURNS)}


def test_the_instruction_is_given_once_and_binds_every_turn(planned, truths):
  for talk, truth in zip(planned, truths, strict=True):
    wording = phrases.LASTING_INSTRUCTIONS[talk.instruction]
    assert [wording in turn.text for turn in talk.turns] == [True] + [False] * 7
    assert {one["instruction"] for one in truth["turns"]} == {talk.instruction}
  assert collections.Counter(talk.instruction for talk in planned) == {
    "sure": 32,
    "question": 32,
  }


@pytest.mark.parametrize("turns", [2, 3, TURNS])
def test_the_mood_turns_at_least_once(turns):
  lasted = collections.Counter()
  for talk in talks.planned(24, turns, seed=2):
    found = [one["changed"] for one in talks.truth(talk)["turns"]]
    moods = [turn.take.labels["emotion"] for turn in talk.turns]
    assert found == [False] + [a != b for a, b in itertools.pairwise(moods)]
    assert any(found)
    lasted.update(moods)
  assert set(lasted) == set(words.EMOTIONS)


def test_gold_finds_no_fault_with_the_written_replies(planned, truths):
  paths = {turn.take.id: "x.flac" for talk in planned for turn in talk.turns}
  for talk, truth in zip(planned, truths, strict=True):
    row = talks.row(talk, truth["turns"], paths, seed=0)
    replies = row["messages"][1::2]
    for reply, one in zip(replies, truth["turns"], strict=True):
      said = gold.reply(reply["think"], reply["content"][0]["text"])
      assert gold.score(one, said) == dict.fromkeys(gold.DIMENSIONS, 5.0)


def test_same_seed_same_dialogues(planned):
  assert talks.planned(64, TURNS, seed=0) == planned
  assert talks.planned(64, TURNS, seed=1) != planned


def test_files_hold_the_schema_and_speech_that_is_there(spoken):
  rows, truths = jsonl.Rows(spoken[0]), read_jsonl(spoken[1])
  found = [schema.dialogue(rows[k]) for k in range(len(rows))]
  assert [talk.id for talk in found] == ["talk-00000", "talk-00001"]
  assert [truth["id"] for truth in truths] == [talk.id for talk in found]
  for talk, truth in zip(found, truths, strict=True):
    assert len(talk.audio) == len(truth["turns"]) == 3
    for audio, one in zip(talk.audio, truth["turns"], strict=True):
      assert schema.epath.Path(audio.source).exists()
      assert one["clips"][0]["id"] in audio.source
      assert truth["simulated"] is one["simulated"] is True


def test_same_arguments_same_bytes_and_another_plan_is_refused(spoken, tmp_path):
  again = talks.write(tmp_path, dialogues=2, turns=3, seed=1)
  root = spoken[0].parent
  for path in sorted(root.rglob("*.*")):
    assert (tmp_path / path.relative_to(root)).read_bytes() == path.read_bytes()
  with pytest.raises(ValueError, match="another plan"):
    talks.write(tmp_path, dialogues=2, turns=3, seed=2)
  assert again[0].read_bytes() == spoken[0].read_bytes()


@pytest.mark.parametrize(
  ("dialogues", "turns", "message"),
  [(3, 8, "dialogues=3"), (0, 8, "dialogues=0"), (2, 1, "turns=1 must be at least 2")],
)
def test_too_few_are_refused(dialogues, turns, message):
  with pytest.raises(ValueError, match=message):
    talks.planned(dialogues, turns, seed=0)
