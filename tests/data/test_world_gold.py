"""The gold listener against replies judged by hand."""

import itertools

import pytest

from stepaudio_jax.data.world import gold, phrases, scripted, words
from stepaudio_jax.data.world.deal import dealer


def truth(task="pitch", answer="low", **more):
  """A truth row with just what gold reads."""
  row = {"task": task, "answer": answer, "slot": None, "instruction": None}
  row |= {"emotion": "neutral", "facts": []}
  if task in words.LABELS:
    row["choices"] = list(words.LABELS[task])
  return {**row, **more}


NAME = truth(
  "memory",
  "Anna",
  slot="name",
  choices=list(words.NAMES),
  facts=[{"slot": "name", "value": "Anna", "clip": "a"}],
)
DIGITS = truth(
  "digits",
  "three four two",
  facts=[{"slot": "digits", "value": "three four two", "clip": "a"}],
)


@pytest.mark.parametrize(
  ("row", "answer", "expected"),
  [
    (truth(), "low", True),
    (truth(), "The voice is LOW.", True),
    (truth(), "The voice is high.", False),
    (truth(), "It is low or middle.", None),
    (truth(), "", None),
    (truth(), "Pleasant.", None),
    (truth(), "It is slowly spoken.", None),
    (truth(), "I cannot tell whether it is low.", None),
    (truth(), "I’m not sure, low.", None),
    (truth(), "**Low**", True),
    (truth(), "<RESPONSE>low</RESPONSE>", True),
    (truth(), "Not high. <answer>low</answer>", True),
    (truth(), "\\boxed{low}", True),
    (truth(), '```json\n{"answer": "low", "not": "high"}\n```', True),
    (truth(), "```json\n{answer: low}\n```", None),
    (truth(), "The voice is low.<|EOT|>high", True),
    (truth("speakers", "two"), "I hear 2 speakers.", True),
    (truth("speakers", "two"), "I hear one speaker.", False),
    (truth("speakers", "two"), "I hear 12 speakers.", None),
    (DIGITS, "You said three four two.", True),
    (DIGITS, "3 4 2", True),
    (DIGITS, "342", True),
    (DIGITS, "three, four and two", True),
    (DIGITS, "Three-four-two!", True),
    (DIGITS, "three two four", False),
    (DIGITS, "three four", False),
    (DIGITS, "three four two two", False),
    (DIGITS, "three four two or three four five", None),
    (DIGITS, "I heard some digits.", None),
    (DIGITS, "You said three four two. Or maybe not.", True),
    (NAME, "You said Anna.", True),
    (NAME, "You said Emma.", False),
    (NAME, "Anna or Emma", None),
  ],
)
def test_correct(row, answer, expected):
  assert gold.correct(row, gold.reply("I hear it.", answer)) is expected


@pytest.mark.parametrize(
  ("sampled", "expected"),
  [
    ("The voice is low", None),  # the thought never closed: nothing to search
    ("low</think>", None),
    ("high</think>low", True),
    ("x</think>high</think>low", True),  # after the last one
    ("\n</think>\nlow", True),
  ],
)
def test_only_what_follows_the_thought_is_the_answer(sampled, expected):
  assert gold.correct(truth(), sampled) is expected


def test_an_unclosed_thought_scores_one_throughout():
  scores = gold.score(truth(), "The voice is deep. It is low.")
  assert scores == dict.fromkeys(gold.DIMENSIONS, 1.0)


def dimension(name, row, think, answer):
  return gold.score(row, gold.reply(think, answer))[name]


@pytest.mark.parametrize(
  ("answer", "expected"), [("It is low.", 5), ("It is high.", 1), ("Hm, nice.", 2)]
)
def test_correctness(answer, expected):
  assert dimension("correctness", truth(), None, answer) == expected


@pytest.mark.parametrize(
  ("row", "think", "expected"),
  [
    (truth(), None, 2),
    (truth(), "The person asks me to answer.", 1),
    (truth(), "I listen to the voice.", 2),  # a feature, no evidence
    (truth(), "It is deep.", 4),  # evidence, no feature
    (truth(), "The voice is deep.", 5),
    (truth(), "The voice is bright.", 1.5),
    (truth(), "The voice is deep and bright.", 1.5),
    (DIGITS, "I hear three four two.", 5),
    (DIGITS, "I hear three four five.", 1.5),
    (NAME, "At the start I heard my name is Anna.", 5),
    (NAME, "At the start I heard Emma.", 1.5),
  ],
)
def test_acoustic_grounding_reads_the_thought(row, think, expected):
  assert dimension("acoustic_grounding", row, think, "It is low.") == expected


def test_only_grounding_reads_the_thought():
  answer = "The voice is low."
  with_good, with_bad, without = (
    gold.score(truth(), gold.reply(think, answer))
    for think in ("The voice is deep.", "high high or maybe, so sorry", None)
  )
  changed = {d for d in gold.DIMENSIONS if len({with_good[d], with_bad[d]}) > 1}
  assert changed == {"acoustic_grounding"}
  assert {d for d in gold.DIMENSIONS if with_good[d] != without[d]} == changed


@pytest.mark.parametrize(
  ("kind", "answer", "expected"),
  [
    (None, "The voice is low.", 4),
    (None, "How lovely to hear.", 2),
    ("brief", "Low.", 5),
    ("brief", "The voice is low.", 1),
    ("sure", "Sure. It is low.", 5),
    ("sure", "It is low, sure.", 1),
    ("question", "It is low. Shall we go on?", 5),
    ("question", "Shall we go on? It is low.", 1),
  ],
)
def test_instruction(kind, answer, expected):
  assert dimension("instruction", truth(instruction=kind), None, answer) == expected


@pytest.mark.parametrize(
  ("answer", "expected"),
  [
    ("The voice is low.", 4.5),
    ("The voice is low. Shall we go on?", 5),
    ("the voice is low.", 3.5),
    ("The voice is low", 2.5),
    ("The The voice is low.", 2.5),
    ("Low.", 3),
    ("low", 1),
    ("It is low. " * 11, 3.5),
  ],
)
def test_naturalness(answer, expected):
  assert dimension("naturalness", truth(), None, answer) == max(1, expected)


def test_repeated_digits_are_no_stutter():
  row = truth("digits", "three three")
  assert dimension("naturalness", row, None, "You said three three.") == 4.5


@pytest.mark.parametrize(
  ("mood", "answer", "expected"),
  [
    ("sad", "You sound sad. I am so sorry to hear that.", 5),
    ("sad", "You sound sad.", 3),
    ("sad", "You sound sad. That is wonderful!", 1),
    ("sad", "I am sorry. That is wonderful!", 2),
    ("neutral", "The voice is low.", 4.5),
    ("neutral", "The voice is low. I am so sorry to hear that.", 2),
    ("angry", "I understand, take a breath.", 5),
  ],
)
def test_emotional_continuity(mood, answer, expected):
  row = truth("emotion", "sad", emotion=mood)
  assert dimension("emotional_continuity", row, None, answer) == expected


@pytest.mark.parametrize(
  ("row", "answer", "expected"),
  [
    (truth(), "The voice is low.", 5),
    (truth(), "The voice is low. The voice is low.", 3),
    (truth(), "The voice is low. Or maybe not.", 3),
    (truth(), "The voice is low and high.", 3),
    (truth(), "The voice is low, Emma.", 3),
    (truth(), "It is low, Emma. Or maybe not. Or maybe not.", 1),
    (NAME, "You said Anna.", 5),
    (NAME, "You said Emma.", 3),
    (DIGITS, "You said three four two.", 5),
    (DIGITS, "You said three four.", 3),
  ],
)
def test_coherence(row, answer, expected):
  assert dimension("coherence", row, None, answer) == expected


@pytest.mark.parametrize("task", words.LABELS)
def test_every_thought_of_the_world_is_evidence_for_its_label_only(task):
  for label in words.LABELS[task]:
    for think in phrases.THOUGHTS[task, label]:
      own = dimension("acoustic_grounding", truth(task, label), think, "Yes.")
      assert own == 5, think
      for other in set(words.LABELS[task]) - {label}:
        row = truth(task, other)
        assert dimension("acoustic_grounding", row, think, "Yes.") == 1.5, think


@pytest.mark.parametrize("mood", words.EMOTIONS)
def test_every_tone_of_the_world_fits_its_mood_only(mood):
  for other, text in itertools.product(words.EMOTIONS, phrases.TONES[mood]):
    row = truth("emotion", other, emotion=other)
    value = dimension("emotional_continuity", row, None, text)
    assert value == (5 if other == mood else 1), text


@pytest.mark.parametrize(
  ("fault", "dimensions"),
  [
    ({"right": False}, {"correctness", "acoustic_grounding"}),
    ({"grounded": False}, {"acoustic_grounding"}),
    ({"obedient": False}, {"instruction"}),
    ({"fluent": False}, {"naturalness"}),
    ({"tone": "none"}, {"emotional_continuity"}),
    ({"tone": "wrong"}, {"emotional_continuity"}),
    ({"coherent": False}, {"coherence"}),
  ],
)
def test_each_fault_of_a_script_lowers_its_own_dimensions(fault, dimensions):
  row = truth("emotion", "sad", emotion="sad", instruction="sure")
  good, bad = (
    gold.score(row, gold.reply(*scripted.reply(row, quality, dealer(0, 1))))
    for quality in (scripted.Quality(), scripted.Quality(**fault))
  )
  assert good == {
    **dict.fromkeys(gold.DIMENSIONS, 5.0),
    "naturalness": good["naturalness"],
  }
  assert {d for d in gold.DIMENSIONS if bad[d] < good[d]} == dimensions


def test_wrong_answers_are_wrong_and_of_the_same_kind():
  deal = dealer(0, 2)
  for _ in range(50):
    assert scripted.other(truth(), deal) in ("middle", "high")
    wrong = scripted.other(DIGITS, deal).split()
    changed = zip(wrong, DIGITS["answer"].split(), strict=True)
    assert sum(a != b for a, b in changed) == 1
