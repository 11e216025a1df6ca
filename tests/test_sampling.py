"""Replies against the full forward pass, brute force in numpy, and their own keys."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import sampling
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.sampling import draws
from tests.models.batches import SIZE, random_params, speech_batch, text_batch

MODEL = StepAudio(SIZE)
NEW = 11  # more than a block of the replies' cache
PLAIN = {"model": MODEL, "max_new_tokens": NEW, "stop_ids": (0,), "pad_id": 95}
WARM = PLAIN | {"temperature": 0.7, "top_k": 30, "stop_ids": tuple(range(1, 97, 16))}


class Counted(StepAudio):
  """Counts how often `extend` is traced and how often it runs."""

  traced: ClassVar[list[int]] = []
  ran: ClassVar[list[int]] = []

  def extend(self, *args):
    self.traced.append(1)
    jax.debug.callback(lambda: self.ran.append(1))
    return super().extend(*args)


@pytest.fixture(scope="module")
def params():
  return random_params(SIZE, seed=3)


@pytest.fixture(scope="module")
def prompts():
  return speech_batch((30, 25, 17, 40), seed=5)


@pytest.fixture(scope="module")
def warm(params, prompts):
  return host(sampling.sample(params, prompts, jax.random.key(2), **WARM))


def host(rollout):
  return jax.tree.map(np.asarray, rollout)


@functools.partial(jax.jit, static_argnames="model")
def forward(params, batch, model=MODEL):
  return model.apply({"params": params}, batch)


def joined(prompts, rollout):
  """Prompt and reply behind each other in one row, as the trainer packs them."""
  prompt_B = (prompts.segment_BT > 0).sum(1)
  rows = []
  for b, n in enumerate(prompt_B):
    reply = rollout.token_BT[b][rollout.mask_BT[b]].tolist()
    rows.append([[*prompts.token_BT[b, :n].tolist(), *reply]])
  whole = text_batch(*rows)
  for b, n in enumerate(prompt_B):
    whole.audio_BT[b, :n] = prompts.audio_BT[b, :n]
  return dataclasses.replace(
    whole, frames_BRUE=prompts.frames_BRUE, frame_count_BR=prompts.frame_count_BR
  )


def log_softmax(x):
  x = np.asarray(x, np.float64)
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def check_log_probs(params, prompts, rollout):
  """Of WARM rollouts; returns how many tokens there were."""
  logits_BTV = np.asarray(forward(params, joined(prompts, rollout)))
  checked = 0
  for b, n in enumerate((prompts.segment_BT > 0).sum(1)):
    tokens = rollout.token_BT[b][rollout.mask_BT[b]]
    before = logits_BTV[b, n - 1 : n - 1 + len(tokens)]
    want_T = log_softmax(before / 0.7)[np.arange(len(tokens)), tokens]
    np.testing.assert_allclose(rollout.logprob_BT[b][: len(tokens)], want_T, atol=1e-5)
    rank_T = (before > before[np.arange(len(tokens)), tokens][:, None]).sum(1)
    assert (rank_T < 30).all(), "a token outside the top k was drawn"
    checked += len(tokens)
  return checked


def test_log_probs_equal_those_of_the_full_forward_pass(params, prompts, warm):
  assert check_log_probs(params, prompts, warm) > 12


def test_a_new_key_gives_new_replies(params, prompts, warm):
  got = host(sampling.sample(params, prompts, jax.random.key(1), **WARM))
  assert (got.token_BT != warm.token_BT).any(1).sum() >= 3


def test_a_reply_ends_with_any_of_the_stop_ids(warm):
  """The stop token belongs to the reply; behind it is padding."""
  lengths = warm.mask_BT.sum(1)
  assert len(set(lengths.tolist())) > 1, "the seed should give unlike lengths"
  assert len(set(warm.truncated_B.tolist())) == 2
  for tokens, logprobs, mask, truncated in zip(
    warm.token_BT, warm.logprob_BT, warm.mask_BT, warm.truncated_B, strict=True
  ):
    n = mask.sum()
    assert mask[:n].all()
    stops = np.isin(tokens[:n], WARM["stop_ids"])
    assert not stops[:-1].any()
    assert stops[-1] == (not truncated)
    assert n == NEW or not truncated
    assert (tokens[n:] == 95).all()
    assert not logprobs[n:].any()
    assert (logprobs[:n] < 0).all()


def test_without_a_stop_id_every_reply_runs_to_the_limit(params, prompts, warm):
  """Up to where the other replies stopped the tokens are the same."""
  got = host(
    sampling.sample(params, prompts, jax.random.key(2), **WARM | {"stop_ids": ()})
  )
  assert got.mask_BT.all()
  assert got.truncated_B.all()
  assert not warm.mask_BT.all()
  np.testing.assert_array_equal(got.token_BT[warm.mask_BT], warm.token_BT[warm.mask_BT])


def test_text_follows_its_stream_and_not_its_neighbours(params, prompts, warm):
  order = np.asarray([2, 0, 3, 1])
  shuffled = jax.tree.map(lambda x: x[order], prompts)
  got = host(
    sampling.sample(
      params, shuffled, jax.random.key(2), stream_B=order.astype(np.int32), **WARM
    )
  )
  np.testing.assert_array_equal(got.token_BT, warm.token_BT[order])
  np.testing.assert_allclose(got.logprob_BT, warm.logprob_BT[order], atol=1e-5)


def test_copies_of_a_prompt_get_replies_of_their_own(params, prompts, warm):
  got = host(sampling.sample(params, prompts, jax.random.key(2), copies=3, **WARM))
  assert got.token_BT.shape == (12, NEW)
  # The first copy is the reply without copies; the others share only its prompt.
  np.testing.assert_array_equal(got.token_BT[::3], warm.token_BT)
  np.testing.assert_allclose(got.logprob_BT[::3], warm.logprob_BT, atol=1e-5)
  assert len({tuple(row) for row in got.token_BT.tolist()}) >= 10
  repeated = jax.tree.map(lambda x: np.repeat(x, 3, axis=0), prompts)
  check_log_probs(params, repeated, got)


def test_greedy_takes_the_likeliest_of_the_full_forward_pass(params, prompts):
  options = PLAIN | {"temperature": 0.0, "stop_ids": (0,)}
  got = host(sampling.sample(params, prompts, jax.random.key(1), **options))
  logits_BTV = np.asarray(forward(params, joined(prompts, got)))
  for b, n in enumerate((prompts.segment_BT > 0).sum(1)):
    tokens = got.token_BT[b][got.mask_BT[b]]
    before = logits_BTV[b, n - 1 : n - 1 + len(tokens)]
    assert tokens.tolist() == before.argmax(1).tolist()
    want_T = log_softmax(before).max(1)
    np.testing.assert_allclose(got.logprob_BT[b][: len(tokens)], want_T, atol=1e-5)


def test_the_loop_leaves_early_and_equal_calls_are_traced_once(params):
  """A row without a prompt is finished from the start, and does not hold up others."""
  Counted.traced.clear()
  Counted.ran.clear()
  prompts = text_batch([[5, 7, 11]], [[9, 2]], [[]])
  for call in range(3):
    rollout = sampling.sample(
      jax.tree.map(lambda x, call=call: x + 0.1 * call, params),
      prompts,
      jax.random.key(call),
      model=Counted(SIZE),
      max_new_tokens=50 + 1,
      stop_ids=tuple(range(SIZE.vocabulary)),
      pad_id=1,
    )
    jax.effects_barrier()
    assert np.asarray(rollout.mask_BT).sum(1).tolist() == [1, 1, 0]
    assert np.asarray(rollout.truncated_B).tolist() == [False, False, False]
    assert (np.asarray(rollout.token_BT)[2] == 1).all()
  assert not Counted.ran, "every reply ended with its first token"
  traces = len(Counted.traced)
  assert traces > 0
  sampling.sample(
    params,
    prompts,
    jax.random.key(9),
    model=Counted(SIZE),
    max_new_tokens=51,
    stop_ids=tuple(range(SIZE.vocabulary)),
    pad_id=1,
  )
  assert len(Counted.traced) == traces


def test_bfloat16_samples_with_a_bfloat16_cache(params, prompts):
  options = PLAIN | {"model": StepAudio(SIZE, dtype=jnp.bfloat16)}
  got = host(sampling.sample(params, prompts, jax.random.key(1), **options))
  whole = joined(prompts, got)
  logits_BTV = np.asarray(forward(params, whole, options["model"]))
  for b, n in enumerate((prompts.segment_BT > 0).sum(1)):
    tokens = got.token_BT[b][got.mask_BT[b]]
    before = logits_BTV[b, n - 1 : n - 1 + len(tokens)]
    want_T = log_softmax(before)[np.arange(len(tokens)), tokens]
    np.testing.assert_allclose(got.logprob_BT[b][: len(tokens)], want_T, atol=0.15)


def kept_by_sorting(logits_V, top_k, top_p, min_p):
  """Which tokens may be drawn, the slow way."""
  order = np.argsort(-logits_V, kind="stable")
  if top_k is not None:
    order = order[:top_k]
  probability = np.exp(log_softmax(logits_V[order]))
  if top_p is not None:
    order = order[: np.searchsorted(np.cumsum(probability), top_p - 1e-6) + 1]
  if min_p is not None:
    probability = probability[: len(order)]
    order = order[probability >= min_p * probability[0]]
  return set(order.tolist())


@pytest.mark.parametrize(
  "cuts",
  [
    {"top_k": 1},
    {"top_k": 5},
    {"top_p": 0.5},
    {"top_p": 1e-3},
    {"top_p": 1.0},
    {"top_k": 6, "top_p": 0.8},
    {"min_p": 0.2},
    {"top_k": 9, "top_p": 0.95, "min_p": 0.1},
    {},
  ],
)
def test_truncation_equals_sorting(cuts):
  logits_BV = np.random.default_rng(0).normal(0, 2, (20, 40)).astype(np.float32)
  settings = draws.Settings(1, (0,), 0, **cuts)
  truncated = jax.jit(draws.truncated, static_argnums=1)
  got_BV = np.asarray(truncated(jnp.asarray(logits_BV), settings))
  cuts = {"top_k": None, "top_p": None, "min_p": None} | cuts
  for got_V, logits_V in zip(got_BV, logits_BV, strict=True):
    kept = np.isfinite(got_V)
    assert set(np.flatnonzero(kept).tolist()) == kept_by_sorting(logits_V, **cuts)
    np.testing.assert_array_equal(got_V[kept], logits_V[kept])


def test_truncation_by_hand():
  """Probabilities .4 .3 .2 .1, ties, and masses that are met exactly."""
  logits_BV = jnp.log(jnp.asarray([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]]))

  def kept(**cuts):
    settings = draws.Settings(1, (0,), 0, **cuts)
    finite_BV = jnp.isfinite(draws.truncated(logits_BV, settings))
    return [np.flatnonzero(row).tolist() for row in finite_BV]

  everything = [0, 1, 2, 3]
  assert kept(top_p=0.69) == [[1, 3], everything]
  assert kept(top_p=0.71) == [[1, 2, 3], everything]
  assert kept(top_k=3) == [[1, 2, 3], everything]
  # Within the top 3 the masses are 4/9, 3/9, 2/9: two of them reach .77.
  assert kept(top_k=3, top_p=0.77)[0] == [1, 3]
  assert kept(min_p=0.45)[0] == [1, 2, 3]


def test_draws_follow_the_tempered_and_truncated_distribution():
  probability_V = np.asarray([0.5, 0.05, 0.3, 0.15])
  count = 20_000
  logits_BV = jnp.tile(jnp.log(jnp.asarray(probability_V, jnp.float32)), (count, 1))
  key_B = jax.random.split(jax.random.key(0), count)
  for options, weight_V in (
    ({}, probability_V),
    ({"temperature": 0.5, "top_p": 0.9}, probability_V**2 * [1, 0, 1, 0]),
  ):
    settings = draws.Settings(1, (0,), 0, **options)
    token_B, logprob_B = jax.jit(draws.draw, static_argnums=2)(
      logits_BV, key_B, settings
    )
    want_V = weight_V / weight_V.sum()
    got_V = np.bincount(token_B, minlength=4) / count
    assert np.abs(got_V - want_V).max() < 4 * np.sqrt(0.25 / count), options
    before = probability_V ** (1 / options.get("temperature", 1.0))
    want_B = np.log(before / before.sum())[np.asarray(token_B)]
    np.testing.assert_allclose(logprob_B, want_B, atol=1e-5)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"temperature": -1.0}, r"temperature=-1\.0"),
    ({"top_k": 0}, "top_k=0"),
    ({"top_k": 98}, "top_k=98 of a vocabulary of 97"),
    ({"top_p": 0.0, "min_p": 2.0}, r"top_p=0\.0, min_p=2\.0"),
    ({"stop_ids": (5, 97)}, r"stop_ids=\(5, 97\)"),
    ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ({"copies": 0}, "copies=0"),
    ({"stream_B": np.zeros(2, np.int32)}, "there are 1 prompts"),
    ({"max_new_tokens": 250}, "250 new tokens pass the 256 positions of 'test'"),
  ],
)
def test_impossible_settings_are_named(params, options, message):
  prompts = text_batch([[5, 7, 11, 1, 2, 3, 4]])
  with pytest.raises(ValueError, match=message):
    sampling.sample(params, prompts, jax.random.key(0), **(PLAIN | options))


def test_packed_and_left_padded_prompts_are_errors(params):
  packed = text_batch([[5, 7, 11]], [[5], [7]])
  with pytest.raises(ValueError, match=r"rows \[1\] \(examples \[1\]\)"):
    sampling.sample(params, packed, jax.random.key(0), **PLAIN)
  left = jax.tree.map(lambda x: x, text_batch([[5, 7, 11]], [[5]]))
  left.segment_BT[1] = [0, 0, 1]
  with pytest.raises(ValueError, match=r"rows \[1\]"):
    sampling.sample(params, left, jax.random.key(0), **PLAIN)
