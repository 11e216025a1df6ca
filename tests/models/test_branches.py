"""Replies that share a computed prompt equal rows that hold prompt and reply."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax.core.types import Batch, Replies
from stepaudio_jax.models.step_audio import StepAudio
from tests.models.batches import SIZE, random_params, speech_batch

MODEL = StepAudio(SIZE)
COUNT_BQ = np.asarray([[5, 1, 3], [2, 5, 0], [4, 4, 5]], np.int32)


@pytest.fixture(scope="module")
def params():
  return random_params(SIZE, seed=3)


@pytest.fixture(scope="module")
def replies() -> Replies:
  """Three prompts with speech and ragged ends, three replies to each."""
  rng = np.random.default_rng(4)
  token_BQT = rng.integers(0, SIZE.vocabulary, (3, 3, 5)).astype(np.int32)
  return Replies(speech_batch((30, 25, 17), seed=5), token_BQT, COUNT_BQ)


def whole_rows(replies: Replies) -> Batch:
  """Prompt and reply end to end, a row each: what the branches must equal."""
  prompts, (rows, copies, length) = replies.prompts, replies.token_BQT.shape
  repeated = jax.tree.map(lambda x: np.repeat(x, copies, axis=0), prompts)

  def padded(x_BT, value):
    return np.pad(x_BT, ((0, 0), (0, length)), constant_values=value)

  token_BT, segment_BT = padded(repeated.token_BT, 0), padded(repeated.segment_BT, 0)
  for row in range(rows * copies):
    start = int(repeated.segment_BT[row].sum())
    count = int(replies.count_BQ[row // copies, row % copies])
    reply_T = replies.token_BQT[row // copies, row % copies]
    token_BT[row, start : start + count] = reply_T[:count]
    segment_BT[row, start : start + count] = 1
  position_BT = np.where(segment_BT > 0, np.arange(token_BT.shape[1])[None], 0)
  return dataclasses.replace(
    repeated,
    token_BT=token_BT,
    segment_BT=segment_BT,
    position_BT=position_BT.astype(np.int32),
    loss_BT=segment_BT > 0,
    example_BT=segment_BT,
    source_BT=segment_BT,
    audio_BT=padded(repeated.audio_BT, -1),
  )


def branched(params, replies):
  return MODEL.apply({"params": params}, replies, method="branches")


def by_rows(params, replies):
  """The same states, read from whole rows."""
  rows, copies, length = replies.token_BQT.shape
  x_BTD = MODEL.apply({"params": params}, whole_rows(replies), method="hidden")
  prompt_B = np.asarray(replies.prompts.segment_BT).sum(1)
  slot_BT = np.repeat(prompt_B, copies)[:, None] + np.arange(-1, length)[None]
  x_BTD = jnp.take_along_axis(x_BTD, jnp.asarray(slot_BT)[..., None], axis=1)
  x_BQTD = x_BTD.reshape(rows, copies, length + 1, -1)
  return x_BQTD[:, 0, 0], x_BQTD[:, :, 1:]


def inside(replies):
  length = replies.token_BQT.shape[2]
  return (np.arange(length)[None, None] < replies.count_BQ[..., None])[..., None]


def test_branches_equal_whole_rows(params, replies):
  x_BD, x_BQTD = jax.jit(branched)(params, replies)
  wanted_BD, wanted_BQTD = by_rows(params, replies)
  np.testing.assert_allclose(x_BD, wanted_BD, atol=1e-5)
  mask = inside(replies)
  np.testing.assert_allclose(
    np.where(mask, x_BQTD, 0), np.where(mask, wanted_BQTD, 0), atol=1e-5
  )


def test_gradients_of_branches_equal_those_of_whole_rows(params, replies):
  """Those through the shared prompt add up over its replies."""

  def loss(params, states):
    x_BD, x_BQTD = states(params, replies)
    return jnp.sin(x_BD).sum() + jnp.where(inside(replies), jnp.sin(x_BQTD), 0).sum()

  ours = jax.jit(jax.grad(lambda p: loss(p, branched)))(params)
  theirs = jax.grad(lambda p: loss(p, by_rows))(params)
  for part in ("adaptor", "decoder"):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=3e-4, rtol=1e-4),
      ours[part],
      theirs[part],
    )


def test_a_reply_sees_neither_its_neighbours_nor_what_follows(params, replies):
  """The gradient of one state into other replies and later tokens is exactly 0."""

  def state(table):
    part = {**params["decoder"], "embed": {"embedding": table}}
    _, x_BQTD = branched({**params, "decoder": part}, unique)
    return x_BQTD[0, 1, 0].sum()

  # Every token of the replies has an id of its own, so its gradient has its own row.
  token_BQT = np.arange(45, dtype=np.int32).reshape(3, 3, 5) + 50
  prompts = dataclasses.replace(replies.prompts, token_BT=replies.prompts.token_BT % 50)
  unique = Replies(prompts, token_BQT, np.full((3, 3), 5, np.int32))
  gradient_VD = jax.grad(state)(params["decoder"]["embed"]["embedding"])
  touched = set(np.flatnonzero(np.abs(gradient_VD).sum(1)).tolist())
  assert int(token_BQT[0, 1, 0]) in touched
  assert touched & set(token_BQT.ravel().tolist()) == {int(token_BQT[0, 1, 0])}
