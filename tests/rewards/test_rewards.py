"""Rule rewards: their own examples, and accuracy against the world's listener."""

import pytest

from stepaudio_jax import rewards
from stepaudio_jax.data.world import gold, phrases, plan, scripted, tasks, text_only
from stepaudio_jax.rewards import accuracy, acoustic_grounding


def test_the_files_are_the_names():
  assert {"accuracy", "think_format"} <= set(rewards.names())
  assert "parts" not in rewards.names()
  with pytest.raises(ValueError, match=r"unknown reward 'acuracy'.*\['accuracy'"):
    rewards.load("acuracy")
  with pytest.raises(ValueError, match="unknown reward 'parts'"):
    rewards.load("parts")


@pytest.mark.parametrize("name", rewards.names())
def test_examples(name):
  rule = rewards.load(name)
  assert rule.__name__ == f"stepaudio_jax.rewards.{name}"
  found = [rule.score(example, text) for example, text, _ in rule.EXAMPLES]
  assert found == [expected for *_, expected in rule.EXAMPLES]
  assert all(type(value) is float for value in found)
  assert len(set(found)) > 1


@pytest.mark.parametrize(
  ("answer", "choices", "said", "expected"),
  [
    ("B", ["low", "high"], "high", 1.0),  # the label of the right choice
    ("(B) high", ["low", "high"], "B", 1.0),
    ("high", ["(A) low", "(B) high"], "high", 1.0),
    ("high", ["(A) low", "(B) high"], "A", 0.0),
    ("Low", ["low", "high"], "low", 1.0),
    ("Paris", None, "Paris.", 1.0),
    ("Paris", [], "**paris**", 1.0),
    ("Paris", None, "Rome", 0.0),
  ],
)
def test_the_expected_answer_may_be_written_in_other_ways(
  answer, choices, said, expected
):
  example = {"id": "x", "answer": answer, "choices": choices}
  assert accuracy.score(example, f"\n</think>\n{said}") == expected


@pytest.mark.parametrize(
  ("example", "message"),
  [
    ({"id": "d-7"}, r"example 'd-7' has no 'answer'; its keys are \['id'\]"),
    ({"id": "d-7", "answer": None}, "example 'd-7' has no 'answer'"),
    (
      {"id": "d-7", "answer": "deep", "choices": ["low", "high"]},
      r"example 'd-7': answer 'deep' is not among the choices \['low', 'high'\]",
    ),
  ],
)
@pytest.mark.parametrize("text", ["low", "\n</think>\nlow"])
def test_examples_without_an_answer_are_errors(example, message, text):
  with pytest.raises(ValueError, match=message):
    accuracy.score(example, text)
  with pytest.raises(ValueError, match=message):
    accuracy.check(example)


def test_accuracy_agrees_with_the_gold_listener_on_the_world():
  takes = plan.takes("heldout", plan.heldout_counts(12), seed=0)
  paths = {take.id: f"{take.id}.flac" for take in takes}
  rows, truths = tasks.dialogues("heldout", takes, paths, 0, per_task=12)
  seen = set()
  for row, truth in zip(rows, truths, strict=True):
    own = row["messages"][-1]
    right = gold.reply(own.get("think"), own["content"][0]["text"])
    assert accuracy.score(row, right) == 1.0
    for one in scripted.candidates(truth, 8, seed=1):
      text = gold.reply(one["think"], one["text"])
      # The script knows what it wrote; the listener reads it.
      assert accuracy.score(row, text) == float("wrong" not in one["model"]), text
      assert accuracy.score(row, text) == float(gold.correct(truth, text) is True)
      seen.add((truth["task"], "wrong" in one["model"]))
  assert len(seen) == 12


def test_grounding_knows_the_worlds_evidence_from_what_was_only_said():
  grounded = [one for many in phrases.THOUGHTS.values() for one in many]
  said = [t.format("three four") for t in phrases.DIGIT_THOUGHTS]
  said += [t.format("Anna") for t in phrases.MEMORY_THOUGHTS]
  written = [
    message["think"]
    for row in text_only.rows(200, seed=0)
    for message in row["messages"]
    if "think" in message
  ]
  assert len(grounded) == 24
  assert len(written) > 100
  for thought in grounded:
    assert acoustic_grounding.score({}, gold.reply(thought, "Low.")) == 1.0, thought
  for thought in said + written:
    assert acoustic_grounding.score({}, gold.reply(thought, "Low.")) == 0.0, thought


def test_grounding_names_its_evidence_by_kind():
  thought = "A deep voice, slowly, over a Guitar. The transcript says loud."
  found = acoustic_grounding.features(thought)
  assert found == {"timbre": ["deep voice"], "pace": ["slowly"], "sound": ["Guitar"]}
