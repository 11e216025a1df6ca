"""Dialogues that are played: prompts with own replies, and rewards by turn."""

import dataclasses
import functools

import numpy as np
import pytest

from stepaudio_jax.core.types import Rollout
from stepaudio_jax.rollout import drawn as drawn_lib
from stepaudio_jax.rollout import summary
from stepaudio_jax.rollout.drawn import Drawn
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.rollout.scorer import Scorer, Scores
from stepaudio_jax.text import messages
from tests import dialogues
from tests.dialogues import LENGTH, RULES, SAMPLES, TINY, TURNS, talk, talks

NAN = np.nan


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
  """Opens the dialogues with a changed recipe."""
  folder = dialogues.world(tmp_path_factory.mktemp("tones"))
  return functools.partial(dialogues.feed, folder, dialogues.params(folder))


@pytest.fixture(scope="module")
def feed(fed):
  return fed()


def reply(text):
  """A reply as it was sampled."""
  think, closed, answer = text.partition("</think>")
  return Said(text, think.strip(), answer.strip() if closed else None)


def rollout(texts, columns=LENGTH):
  """What sampling would have given."""
  ids = [[*TINY.encode(t), TINY.special.eot] if t else [] for t in texts]
  token_BT = np.asarray(
    [row + [TINY.special.pad] * (columns - len(row)) for row in ids]
  )
  count_B = np.asarray([len(row) for row in ids], np.int32)
  mask_BT = np.arange(columns) < count_B[:, None]
  zero_BT = np.zeros(mask_BT.shape, np.float32)
  return Rollout(token_BT, zero_BT, mask_BT, count_B, np.zeros(len(ids), bool))


def shown(batch, row):
  """A prompt as text, "…" for a clip."""
  token_T = batch.token_BT[row][batch.segment_BT[row] > 0]
  text = TINY.decode(token_T.tolist(), special=True)
  start, end = "<audio_start>", "<audio_end>"
  while start in text:
    text = text[: text.index(start)] + "…" + text[text.index(end) + len(end) :]
  return text


# ─── What is asked ──────────────────────────────────────────────────────────────────


def test_own_replies_take_the_places_of_the_datas():
  rows = messages.normalise(talk("x", 0, 1)["messages"], "x")
  own = [messages.own_turn("High!"), messages.own_turn(None, "never closed")]

  def texts(count, own):
    found = messages.played(rows, count, own)
    return [messages.text_of(message) for message in found]

  assert texts(3, []) == ["Hi.", "Yes?", "Pitch?"]
  assert texts(3, own[:1]) == ["Hi.", "Yes?", "Pitch?", "High!", "Sure?"]
  whole = ["Hi.", "Yes?", "Pitch?", "High!", "Sure?", "", "And now?"]
  assert texts(3, own) == whole
  assert texts(1, []) == [messages.text_of(row) for row in rows[:-1]]
  assert own[1]["think"] == ""


def test_dialogues_that_are_too_short_are_skipped_and_named(feed):
  assert [(s.id, s.why) for s in feed.skipped] == [
    ("short#1", "2 human turns, 3 are played")
  ]
  assert feed.counts == (4,)
  assert shown(feed.batch([[(0, 0)]], 0), 0).endswith(
    "<|BOT|>human\n…Pitch?<|EOT|><|BOT|>assistant\n<think>\n"
  )


HEAD = (
  "<|BOT|>human\nHi.<|EOT|><|BOT|>assistant\nYes?<|EOT|>"
  "<|BOT|>human\n…Pitch?<|EOT|><|BOT|>assistant\n"
)
SAID = (  # by sample and turn
  ("A tone.\n</think>\nHigh.", "Sure.\n</think>\nYes, high.", "So.\n</think>\nlow"),
  ("A tone and no end", "Hm.\n</think>\n<think> is a word", "\n</think>\nhigh"),
)


def played(feed, said=SAID):
  """Dialogue 0 with these replies: (rows, rollout, prompts that were asked)."""
  asked, seen = [feed.row("train-0#3")], []

  def ask(batch, turn):
    seen.append(batch)
    fits_B = (batch.segment_BT > 0).any(1)
    texts = [sample[turn] for sample in said]
    return rollout([t if fits else "" for t, fits in zip(texts, fits_B, strict=True)])

  whole = talks(feed, samples=len(said)).play(
    asked, rollout([sample[0] for sample in said]), ask
  )
  return asked, whole, seen


def scored(feed, asked, texts, rewarded="each", rules=RULES):
  counts_B = np.asarray([len(text.text) for text in texts])
  return talks(feed, rewarded).scores(Scorer(rules, {}, None), asked, texts, counts_B)


def test_each_sample_goes_on_from_its_own_answers(feed):
  asked, whole, seen = played(feed)
  second = "<|EOT|><|BOT|>human\nSure?<|EOT|><|BOT|>assistant\n"
  third = "<|EOT|><|BOT|>human\n…And now?<|EOT|><|BOT|>assistant\n<think>\n"
  assert [shown(seen[0], row) for row in range(2)] == [
    HEAD + "High." + second + "<think>\n",
    HEAD + second + "<think>\n",  # its thought never closed: an empty turn
  ]
  wanted = [
    HEAD + "High." + second + "Yes, high." + third,
    HEAD + second + "<think> is a word" + third,
  ]
  assert [shown(seen[1], row) for row in range(2)] == wanted
  # (dialogue, turn, sample), and the same prompts once more for learning.
  texts = [reply(sample[turn]) for turn in range(TURNS) for sample in SAID]
  decoded = [TINY.decode(t[:n]) for t, n in zip(whole.token_BT, whole.count_B)]  # noqa: B905
  assert decoded == [text.text for text in texts]
  again = talks(feed).prompts(asked, texts)
  assert [shown(again, row) for row in (4, 5)] == wanted
  assert shown(again, 0) == shown(again, 1) == HEAD + "<think>\n"
  for name in ("token_BT", "frames_BRUE", "audio_BT"):
    np.testing.assert_array_equal(getattr(again, name)[2:4], getattr(seen[0], name))


def test_replies_come_by_dialogue_then_turn_then_sample(feed):
  def replies(turn):
    names = [f"{d}{turn}{g}" for d in range(2) for g in range(SAMPLES)]
    return rollout([f"So.\n</think>\n{name}" for name in names])

  asked = [feed.row(f"train-{k}#3") for k in range(2)]
  whole = talks(feed).play(asked, replies(0), lambda batch, turn: replies(turn))
  places = [f"{d}{t}{g}" for d in range(2) for t in range(TURNS) for g in range(2)]
  said = [TINY.decode(t[:n]) for t, n in zip(whole.token_BT, whole.count_B)]  # noqa: B905
  assert [text[-3:] for text in said] == places


def test_a_history_with_thoughts_holds_those_that_closed(fed):
  _, _, seen = played(fed(**{"data.history": "thought"}))
  first, second = (shown(seen[0], row) for row in range(2))
  assert "assistant\n<think>\nA tone.\n</think>\nHigh.<|EOT|>" in first
  assert "assistant\n<think>\n\n</think>\n<|EOT|><|BOT|>human\nSure?" in second


def test_prompts_of_a_turn_have_the_smallest_declared_shape(fed):
  """Of what was really said: turn 2 is short, turn 3 is not, after a long answer."""
  bucketed = fed(**{"data.buckets": (72, 96)})
  _, _, seen = played(bucketed)
  lengths = [int((batch.segment_BT > 0).sum(1).max()) for batch in seen]
  assert lengths[0] <= 72 < lengths[1] <= 96
  assert [batch.token_BT.shape[1] for batch in seen] == [72, 96]


def test_a_prompt_that_outgrows_its_room_is_not_asked(feed, monkeypatch):
  """The first sample's long first answer leaves no room for turn 3; 2 still fits."""
  long = "So.\n</think>\nIt is a low one."
  said = ((long, *SAID[0][1:]), SAID[1])
  _, _, seen = played(feed, said)
  most = int((seen[1].segment_BT[0] > 0).sum()) - 1
  assert (seen[1].segment_BT[1] > 0).sum() <= most
  monkeypatch.setattr(feed, "limits", dataclasses.replace(feed.limits, max_tokens=most))
  asked, whole, seen = played(feed, said)
  assert (seen[1].segment_BT > 0).any(1).tolist() == [False, True]
  assert whole.count_B.tolist()[4] == 0
  texts = [reply(sample[turn]) for turn in range(TURNS) for sample in said]
  texts[4] = Said("", "", None)
  # What was not asked has no sound: rules of texts would count, or none.
  for text in ({}, {"accuracy": 0.5, "think_format": 0.5}):
    found = scored(feed, asked, texts, rules={**RULES, "text": text})
    assert np.isnan(found.objective_B).tolist() == [False] * 4 + [True, False]
  found = scored(feed, asked, texts, "last")
  assert np.isnan(found.objective_B).tolist() == [True, False] * 3
  told = Drawn(asked, whole, texts, found, np.zeros(6), TURNS)
  assert [row["failed"] for row in drawn_lib.rows(1, told, {})] == [False] * 4 + [
    True,
    False,
  ]
  numbers = summary._by_turn(told)
  assert numbers["data/turns_failed"] == 1.0
  assert numbers["data/turns_empty"] == 1.0  # the thought that never closed


# ─── Rewards ────────────────────────────────────────────────────────────────────────


def test_each_turn_has_a_reward_of_its_own(feed):
  """The dialogue's answer ("high") is that of turn 3: 0.8 there and 0 before.

  think_format: 1 with a thought that closes, 0 without thought or without its end.
  """
  asked, _, _ = played(feed)
  assert asked[0]["answer"] == "high"
  texts = [reply(sample[turn]) for turn in range(TURNS) for sample in SAID]
  found = scored(feed, asked, texts)
  assert found.names == ("accuracy", "think_format")
  np.testing.assert_array_equal(
    found.reward_BC, [[NAN, 1], [NAN, 0], [NAN, 1], [NAN, 0], [0, 1], [1, 0]]
  )
  np.testing.assert_allclose(found.weight_BC, [[0, 0.2]] * 4 + [[0.8, 0.2]] * 2)
  np.testing.assert_allclose(found.objective_B, [0.2, 0, 0.2, 0, 0.2, 0.8], atol=1e-7)


def test_the_last_reward_may_be_that_of_all_turns(feed):
  asked, _, _ = played(feed)
  texts = [reply(sample[turn]) for turn in range(TURNS) for sample in SAID]
  found = scored(feed, asked, texts, "last")
  np.testing.assert_array_equal(found.reward_BC, [[0, 1], [1, 0]] * 3)
  np.testing.assert_allclose(found.objective_B, [0.2, 0.8] * 3, atol=1e-7)


def test_a_turn_without_any_reward_of_its_own_is_masked(feed):
  asked, _, _ = played(feed)
  texts = [reply(sample[turn]) for turn in range(TURNS) for sample in SAID]
  found = scored(feed, asked, texts, rules={"audio": {"accuracy": 1.0}})
  np.testing.assert_array_equal(found.objective_B, [NAN] * 4 + [0, 1])


def drawn(objectives):
  """Two dialogues of two turns with two samples each."""
  reward_B1 = np.asarray(objectives, np.float32)[:, None]
  texts = [Said(f"{k}", "", "") for k in range(8)]
  scores = Scores(("x",), reward_B1, np.ones_like(reward_B1))
  asked = [
    {"id": f"{n}#2", "dialogue_id": n, "messages": talk(n, 0, 1)["messages"][:-1]}
    for n in "ab"
  ]
  made = rollout(["a"] * 8)
  return Drawn(asked, made, texts, scores, np.zeros(8, np.int32), turns=2)


def test_a_dialogue_stays_together_and_counts_if_any_turn_has_spread():
  """a: both turns flat; b: 0 and 1 in its second turn."""
  given = drawn([1, 1, 0, 0, 1, 1, 0, 1])
  assert drawn_lib.with_spread(given) == [1]
  long_B2 = np.stack([given.scores.reward_BC[:, 0], -np.arange(8) / 8], axis=1)
  scores = Scores(("x", "overlong"), long_B2, np.ones_like(long_B2))
  assert drawn_lib.with_spread(dataclasses.replace(given, scores=scores)) == [1]
  kept = drawn_lib.joined([drawn_lib.chosen(given, [k]) for k in (1, 0)])
  assert [text.text for text in kept.texts] == list("45670123")
  rows = drawn_lib.rows(1, kept, {"objective": kept.scores.objective_B})
  assert [row["dialogue_id"] for row in rows] == ["b"] * 4 + ["a"] * 4
  assert [row["turn"] for row in rows] == [3, 3, 4, 4] * 2
  assert [row["sample"] for row in rows] == [0, 1] * 4
  assert [row["objective"] for row in rows] == [1, 1, 0, 1, 1, 1, 0, 0]
