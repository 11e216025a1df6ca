"""Scorer, context of the judge, rows, and the paired comparison, by hand."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from stepaudio_jax import meshes
from stepaudio_jax.core.types import Experience, Rollout
from stepaudio_jax.models import step_audio
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rollout import drawn, gate, heldout, judge, overlong, scorer
from stepaudio_jax.rollout.actor import Actor, Played, Sampling
from stepaudio_jax.rollout.drawn import Drawn
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.text import chat, tokenizer
from tests import small

RIGHT = Said("I hear it.\n</think>\nHigh.", "I hear it.", "High.")
WRONG = Said("I hear it.\n</think>\nLow.", "I hear it.", "Low.")
OPEN = Said("I hear it and", "I hear it and", None)
RULES = {"audio": {"accuracy": 0.8, "think_format": 0.2}, "text": {"accuracy": 1.0}}
COUNTS = np.asarray([3, 4, 5, 6])  # tokens of the four replies
ROWS = [{"id": name, "answer": "high", "choices": ["low", "high"]} for name in "ab"]


def prompts():
  """Two rows; the first has a recording, the second has none."""
  batch = small.dialogue_batch(rows=2)
  return dataclasses.replace(batch, frame_count_BR=np.asarray([[7], [0]], np.int32))


def test_rules_go_by_the_stream_of_the_prompt():
  """Audio: 0.8 · right + 0.2 · thought; text: 1.0 · right and no other rule."""
  scores = scorer.Scorer(RULES, {}, None)(
    prompts(), ROWS, [RIGHT, WRONG, RIGHT, OPEN], COUNTS
  )
  assert scores.names == ("accuracy", "think_format")
  np.testing.assert_array_equal(
    scores.reward_BC, [[1, 1], [0, 1], [1, np.nan], [0, np.nan]]
  )
  np.testing.assert_allclose(scores.weight_BC, [[0.8, 0.2], [0.8, 0.2], [1, 0], [1, 0]])
  np.testing.assert_allclose(scores.objective_B, [1.0, 0.2, 1.0, 0.0])


def test_learned_rewards_that_are_missing_are_missing_and_not_zero():
  def two_dimensions(batch, texts):
    rewards = np.asarray([1.0, 2.0, 3.0, np.nan])
    return {"warmth": rewards, "charm": np.full(4, np.nan)}

  weights = {"warmth": 0.5, "charm": 0.0}
  scores = scorer.Scorer({}, weights, two_dimensions)(
    prompts(), ROWS, [RIGHT, WRONG, RIGHT, OPEN], COUNTS
  )
  np.testing.assert_allclose(scores.objective_B, [0.5, 1.0, 1.5, np.nan])


@pytest.mark.parametrize(
  ("rules", "learned", "reader", "message"),
  [
    ({"video": {"accuracy": 1.0}}, {}, None, r"\['video'\].*\('audio', 'text'\)"),
    ({"audio": {"accurate": 1.0}}, {}, None, r"accurate.*'accuracy', 'acou.*'think_f"),
    (RULES, {"warmth": 1.0}, None, "one needs the other"),
    (RULES, {}, lambda batch, texts: {}, "one needs the other"),
    ({}, {}, None, "at least one"),
    (RULES, {"accuracy": 1.0}, lambda batch, texts: {}, r"none twice"),
  ],
)
def test_impossible_rewards_are_refused(rules, learned, reader, message):
  with pytest.raises(ValueError, match=message):
    scorer.Scorer(rules, learned, reader)


def test_the_judge_reads_prompts_up_to_the_humans_turn():
  """Cutting the opened turn off a prompt gives the rendering without it."""
  tiny = tokenizer.load("tiny")
  asked = [{"role": "human", "content": [{"type": "text", "text": "How high is it?"}]}]
  known = {"tokenizer": tiny, "clip_tokens": (), "example_id": "x"}
  opened_T = chat.prompt(asked, thinking=True, **known).token_T
  wanted_T = chat.render(asked, target=None, **known).token_T
  batch = small.dialogue_batch(rows=1)
  row_T = np.pad(opened_T, (0, 3))[None]
  batch = dataclasses.replace(
    batch,
    token_BT=row_T,
    segment_BT=(np.arange(row_T.shape[1]) < len(opened_T)).astype(np.int32)[None],
    position_BT=np.arange(row_T.shape[1], dtype=np.int32)[None],
    example_BT=np.zeros_like(row_T),
    source_BT=np.zeros_like(row_T),
  )
  cut = judge.without_opening(batch, judge.opening_tokens(tiny), tiny.special.pad)
  kept_T = cut.token_BT[0][cut.segment_BT[0] > 0]
  np.testing.assert_array_equal(kept_T, wanted_T)
  assert (cut.token_BT[0][len(wanted_T) :] == tiny.special.pad).all()


def test_rows_name_their_prompt_and_leave_out_what_was_not_sampled():
  rollout = Rollout(
    token_BT=np.asarray([[5, 6, 0], [7, 0, 0]]),
    logprob_BT=np.asarray([[-1.0, -2.0, 0.0], [-0.5, 0.0, 0.0]]),
    mask_BT=np.asarray([[True, True, False], [True, False, False]]),
    count_B=np.asarray([2, 1]),
    truncated_B=np.asarray([False, True]),
  )
  asked = [{"id": "a#0", "dialogue_id": "a"}]
  shown = {"objective": np.asarray([0.5, np.nan]), "reward": {"x": np.arange(2)}}
  scores = scorer.Scores(("x",), np.zeros((2, 1)), np.ones((2, 1)))
  replies = Drawn(asked, rollout, [RIGHT, OPEN], scores, np.asarray([2, 1]))
  first, second = drawn.rows(3, replies, shown)
  assert first["token_ids"] == [5, 6] and second["logprobs"] == [-0.5]  # noqa: PT018
  assert (first["sample"], second["sample"]) == (0, 1)
  assert (first["policy_version"], second["policy_version"]) == (2, 1)
  assert second["dialogue_id"] == "a"
  assert (first["objective"], second["objective"]) == (0.5, None)
  assert second["reward"] == {"x": 1.0}
  assert second["truncated"]


def exam_row(step, prompt, objective):
  names = {"tokens": 4, "kl": 0.0, "entropy": 1.0, "reward": {"accuracy": objective}}
  return {"step": step, "prompt_id": prompt, "objective": objective, **names}


def test_end_against_start_is_paired_by_prompt():
  """a: mean of (0, 1) → 1; b: 0 → 0.5, one reply without objective: gain (½ + ½)/2."""
  found = [exam_row(0, "a", 0.0), exam_row(0, "a", 1.0), exam_row(0, "b", 0.0)]
  found += [exam_row(9, "a", 1.0), exam_row(9, "b", 0.5), exam_row(9, "b", None)]
  result = heldout.compared(found)
  assert result["steps"] == [0, 9]
  assert result["objective"]["start"] == pytest.approx(0.25)
  assert result["objective"]["end"] == pytest.approx(0.75)
  assert result["objective"]["gain"] == pytest.approx(0.5)
  assert result["objective"]["low"] == pytest.approx(0.5)  # both prompts gain alike
  assert result["objective"]["missing"] == 1
  assert result["reward/accuracy"]["gain"] == pytest.approx(0.5)
  assert "+0.500 [+0.500, +0.500]" in heldout.table(result)
  long = {f"reward/{'x' * 40}": result["objective"]}
  lines = heldout.table(result | long).splitlines()[1:]
  assert len({line.index(" → ") for line in lines}) == 1  # one column


def test_an_interval_of_many_prompts_is_that_of_the_normal_law():
  """Gains of n prompts: mean ± 1.96 s/√n, to a few per cent."""
  rng = np.random.default_rng(3)
  gains = rng.normal(0.2, 1.0, 400)
  found = [exam_row(0, str(k), 0.0) for k in range(400)]
  found += [exam_row(1, str(k), float(gain)) for k, gain in enumerate(gains)]
  row = heldout.compared(found)["objective"]
  half = 1.96 * gains.std(ddof=1) / 20
  assert row["low"] == pytest.approx(gains.mean() - half, abs=0.02)
  assert row["high"] == pytest.approx(gains.mean() + half, abs=0.02)


def test_more_prompts_than_there_are_is_an_error():
  feed = types.SimpleNamespace(counts=(3, 2))
  with pytest.raises(ValueError, match=r"prompts=8, but only 5 fit"):
    heldout.Exam(feed, 8, 4, None)


def replies(*lengths, columns, first=0):
  """One reply to each of so many prompts; token k of a reply is 10 · its number + k."""
  count_B = np.asarray(lengths)
  mask_BT = np.arange(columns)[None] < count_B[:, None]
  number_B1 = np.arange(len(lengths))[:, None] + 1 + first
  token_BT = np.where(mask_BT, 10 * number_B1 + np.arange(columns)[None], 0)
  rollout = Rollout(token_BT, -0.1 * token_BT, mask_BT, count_B, count_B == columns)
  scores = scorer.Scores(("x",), 1.0 * number_B1, np.ones_like(1.0 * number_B1))
  asked = [{"id": str(k)} for k in range(first, first + len(lengths))]
  version_B = np.zeros(len(lengths), np.int32)
  return Drawn(asked, rollout, [RIGHT] * len(lengths), scores, version_B)


def test_parts_of_unlike_widths_are_joined_to_the_widest():
  whole = drawn.joined(
    [replies(2, 3, columns=3), replies(5, columns=6, first=2), replies(1, columns=1)]
  )
  assert whole.rollout.token_BT.tolist() == [
    [10, 11, 0, 0, 0, 0],
    [20, 21, 22, 0, 0, 0],
    [30, 31, 32, 33, 34, 0],
    [10, 0, 0, 0, 0, 0],
  ]
  np.testing.assert_array_equal(whole.rollout.mask_BT, whole.rollout.token_BT > 0)
  np.testing.assert_allclose(whole.rollout.logprob_BT, -0.1 * whole.rollout.token_BT)
  assert whole.rollout.truncated_B.tolist() == [False, True, False, True]


def test_columns_that_no_reply_needs_are_left_out_and_no_others():
  narrow = drawn.shortened(replies(2, 3, columns=9), 4).rollout
  assert narrow.token_BT.tolist() == [[10, 11, 0, 0], [20, 21, 22, 0]]
  assert narrow.mask_BT.shape == narrow.logprob_BT.shape == (2, 4)
  with pytest.raises(ValueError, match="a reply of 5 tokens in 4 columns"):
    drawn.shortened(replies(2, 5, columns=9), 4)


def measuring(*buckets):
  """An actor of a random model for replies of up to 12 tokens, and its parameters."""
  params = step_audio.init_params(jax.random.key(0), small.SIZE)
  mesh = meshes.mesh({"data": 1, "fsdp": 1, "tensor": 1, "context": 1})
  known = (tokenizer.load("tiny"), None, params, mesh)
  how = Sampling(1, 12, 1.0, reply_buckets=buckets)
  return Actor(StepAudio(small.SIZE), *known, how), params


def test_the_longest_reply_decides_among_the_declared_widths():
  actor, _ = measuring(4, 8)
  found = {n: actor._width(replies(2, n, columns=12).rollout) for n in (2, 4, 5, 9, 12)}
  assert found == {2: 4, 4: 4, 5: 8, 9: 12, 12: 12}
  assert measuring()[0]._width(replies(2, columns=12).rollout) == 12


@pytest.mark.slow
def test_replies_measured_in_fewer_columns_have_the_same_numbers():
  given, batch = replies(2, 4, columns=12), small.dialogue_batch(rows=2)
  found = []
  for buckets in ((4, 8), ()):
    actor, params = measuring(*buckets)
    found.append(actor.measured(params, batch, given, 0))
  narrow, wide = found
  assert narrow.experience.mask_BT.shape == (2, 4)
  assert narrow.drawn.rollout.token_BT.shape == (2, 4)
  assert narrow.replies.token_BQT.shape == (2, 1, 4)
  assert wide.experience.mask_BT.shape == (2, 12)
  for name in ("old_BT", "reference_BT", "sampler_BT", "mask_BT"):
    narrow_BT = getattr(narrow.experience, name)
    wide_BT = getattr(wide.experience, name)
    np.testing.assert_allclose(narrow_BT, wide_BT[:, :4], atol=1e-5)
    assert not wide_BT[:, 4:].any()


def test_long_replies_lose_reward_near_the_limit():
  """L = 10, B = 4: 0 up to 6 tokens, −¼ for each more, −1 at 10, in both streams."""
  shaped = overlong.shaped({"overlong": {"buffer_tokens": 4, "weight": 0.5}}, 10)
  count_B = np.asarray([0, 6, 7, 9, 10])
  np.testing.assert_allclose(shaped.penalty(count_B), [0, 0, -0.25, -0.75, -1])
  texts = [RIGHT, WRONG, RIGHT, OPEN]
  scores = scorer.Scorer(RULES, {}, None, shaped)(
    prompts(), ROWS, texts, np.asarray([6, 8, 10, 9])
  )
  assert scores.names == ("accuracy", "think_format", "overlong")
  np.testing.assert_allclose(scores.reward_BC[:, 2], [0, -0.5, -1, -0.75])
  np.testing.assert_allclose(scores.objective_B, [1.0, 0.2 - 0.25, 0.5, -0.375])


def checked(told, **bounds):
  """The gate on two replies of which the trainer tells `told` of every token."""
  given = replies(2, 3, columns=3)
  rollout = given.rollout
  blank = {field.name: rollout.logprob_BT for field in dataclasses.fields(Experience)}
  old_BT = np.where(rollout.mask_BT, told(rollout.logprob_BT), 0.0)
  e = Experience(**blank | {"mask_BT": rollout.mask_BT, "old_BT": old_BT})
  played = Played(given, None, e, None, 0, {})
  return gate.Gate(**{"max_abs": 0.0, "min_pearson": 0.0} | bounds).check(1, played)


def test_a_trainer_that_knows_nothing_does_not_pass_the_gate():
  """NaN is no small distance, and the correlation of a constant is none."""
  assert checked(lambda x: x + 0.3, min_pearson=0.995)["pearson"] > 0.999
  for bounds in ({"max_abs": 1e-3}, {"min_pearson": 0.995}, {}):
    with pytest.raises(gate.Disagreement, match="nan nats"):
      checked(lambda x: x * np.nan, **bounds)
  with pytest.raises(gate.Disagreement, match="correlation nan"):
    checked(np.zeros_like, min_pearson=0.995)
  assert np.isnan(checked(np.zeros_like)["pearson"])  # it is off


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_replies_are_drawn_at_a_temperature(temperature):
  with pytest.raises(ValueError, match=f"sampling.temperature={temperature}"):
    Sampling(2, 8, temperature)


def test_a_buffer_of_nothing_is_no_penalty():
  assert overlong.shaped({"overlong": {"buffer_tokens": 0, "weight": 1.0}}, 10) is None


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"buffer_tokens": 4}, r"\['buffer_tokens'\].*\['buffer_tokens', 'weight'\]"),
    ({"buffer_tokens": 11, "weight": 1.0}, r"buffer_tokens=11.*0…10"),
    ({"buffer_tokens": -1, "weight": 1.0}, "buffer_tokens=-1"),
    ({"buffer_tokens": 4, "weight": -1.0}, "weight=-1.0"),
  ],
)
def test_impossible_penalties_are_refused(given, message):
  with pytest.raises(ValueError, match=message):
    overlong.shaped({"overlong": given}, 10)
