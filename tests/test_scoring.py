"""Rewards of replies that share a prompt against rows of their own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import scoring
from stepaudio_jax.core.types import Replies
from stepaudio_jax.models.heads import RewardHeads, init_rewards
from stepaudio_jax.models.step_audio import StepAudio, init_params
from tests import small

MODEL, HEADS = StepAudio(small.SIZE), RewardHeads(3)
ON_THOUGHT = (False, True, False)
COUNTS = ((4, 7, 3, 9), (5, 2, 0, 0))


@pytest.fixture(scope="module")
def params():
  made = init_params(jax.random.key(0), small.SIZE)
  heads = init_rewards(jax.random.key(1), small.SIZE.width, 3)
  # A fresh gate is 0: here it must tell tokens apart.
  gate = np.random.default_rng(2).normal(size=(small.SIZE.width, 3)).astype(np.float32)
  return made | {"rewards": heads | {"gate": {"kernel": gate}}}


@pytest.fixture(scope="module")
def replies():
  """Two prompts with two replies each (the second one's second reply is absent)."""
  prompts = small.dialogue_batch(rows=2)
  token_BQT = np.random.default_rng(1).integers(5, small.SIZE.vocabulary, (2, 4, 9))
  count_BQ = np.asarray(COUNTS, np.int32)
  return Replies(prompts, token_BQT.astype(np.int32), count_BQ)


@functools.partial(jax.jit, static_argnames="on_thought")
def compiled(params, replies, on_thought):
  return scoring.rewards(MODEL, HEADS, params, replies, on_thought)


def rewards(params, replies, on_thought=ON_THOUGHT):
  return np.asarray(compiled(params, replies, on_thought))


@jax.jit
def read_alone(params, batch):
  """(x_TD, logits_TV) of a batch of one row."""
  x_BTD = MODEL.apply({"params": params}, batch, method="hidden")
  return x_BTD[0], MODEL.apply({"params": params}, x_BTD, method="logits")[0]


def alone(params, replies, row, branch):
  """Rewards [C] of one branch as an ordinary row: the prompt with it behind."""
  prompts = replies.prompts
  heard = int((prompts.segment_BT[row] > 0).sum())
  count = int(replies.count_BQ[row, branch])
  token_T = np.concatenate(
    [prompts.token_BT[row, :heard], replies.token_BQT[row, branch, :count]]
  )
  length = len(token_T)
  batch = dataclasses.replace(
    jax.tree.map(lambda x: x[row : row + 1], prompts),
    token_BT=token_T[None],
    segment_BT=np.ones((1, length), np.int32),
    position_BT=np.arange(length, dtype=np.int32)[None],
    audio_BT=np.concatenate(
      [prompts.audio_BT[row, :heard], np.full(count, -1, np.int32)]
    )[None],
  )
  backbone = {part: params[part] for part in ("adaptor", "decoder")}
  x_TD, logits_TV = map(np.asarray, read_alone(backbone, batch))
  return heads_in_numpy(params["rewards"], x_TD[heard:], logits_TV, token_T, heard)


def heads_in_numpy(heads, x_TD, logits_TV, token_T, heard):
  """One token at a time; the reply begins at place `heard`."""
  surprises = [
    logits_TV[t - 1, token_T[t]] - logits_TV[t - 1].max()
    for t in range(heard + 1, len(token_T))
  ]
  heads = jax.tree.map(np.asarray, heads)
  out = x_TD[-1] @ heads["linear"]["kernel"] + heads["linear"]["bias"]
  for c in range(3):
    weights = np.exp(x_TD[1:] @ heads["gate"]["kernel"][:, c])
    out[c] += heads["scale"][c] * (weights @ surprises) / weights.sum()
  return out


def test_a_shared_prompt_gives_the_rewards_of_separate_rows(params, replies):
  reward_BIC = rewards(params, replies)
  for row, reply in ((0, 0), (0, 1), (1, 0)):
    answer = alone(params, replies, row, 2 * reply)
    thought = alone(params, replies, row, 2 * reply + 1)
    # The second dimension reads the turn with its thought, the others the answer.
    expected = [answer[0], thought[1], answer[2]]
    np.testing.assert_allclose(reward_BIC[row, reply], expected, atol=1e-5)


def test_an_absent_reply_has_no_reward(params, replies):
  missing = np.isnan(rewards(params, replies))
  assert missing[1, 1].all()
  assert missing.sum() == 3


def test_swapping_the_replies_swaps_the_rewards(params, replies):
  order = [2, 3, 0, 1]
  swapped = dataclasses.replace(
    replies,
    token_BQT=replies.token_BQT[:, order],
    count_BQ=replies.count_BQ[:, order],
  )
  there, back = rewards(params, replies), rewards(params, swapped)
  np.testing.assert_allclose(there[:, ::-1], back, atol=1e-6)
  gap, turned = there[0, 1] - there[0, 0], back[0, 1] - back[0, 0]
  np.testing.assert_allclose(gap, -turned, atol=1e-6)
  assert np.abs(gap).min() > 1e-3


def test_answers_are_read_without_their_thoughts(params, replies):
  """Other thoughts change only the dimension that reads them."""
  token_BQT = replies.token_BQT.copy()
  token_BQT[:, 1::2] = token_BQT[:, 1::2, ::-1]
  before, after = (
    rewards(params, r)
    for r in (replies, dataclasses.replace(replies, token_BQT=token_BQT))
  )
  np.testing.assert_array_equal(before[0, :, [0, 2]], after[0, :, [0, 2]])
  assert (before[0, :, 1] != after[0, :, 1]).all()


def test_what_lies_behind_a_reply_and_absent_ones_have_no_gradient(params, replies):
  def total(embedding):
    decoder = {**params["decoder"], "embed": {"embedding": embedding}}
    reward = scoring.rewards(
      MODEL, HEADS, {**params, "decoder": decoder}, replies, ON_THOUGHT
    )
    return jnp.where(jnp.isnan(reward), 0.0, reward).sum()

  embedding = params["decoder"]["embed"]["embedding"]
  gradient = np.asarray(jax.jit(jax.grad(total))(embedding))
  assert np.isfinite(gradient).all()
  prompts = replies.prompts
  read = set(prompts.token_BT[(prompts.segment_BT > 0) & (prompts.audio_BT < 0)])
  for row, branch in np.argwhere(replies.count_BQ > 0):
    read |= set(replies.token_BQT[row, branch, : replies.count_BQ[row, branch]])
  unread = sorted(set(range(small.SIZE.vocabulary)) - read)
  assert unread
  assert not gradient[unread].any()


def test_on_thought_of_another_length_is_an_error(params, replies):
  with pytest.raises(ValueError, match="of 2 dimensions, the heads are 3"):
    rewards(params, replies, (True, False))
