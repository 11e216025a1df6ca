"""Closed thoughts, and fewer slots than replies: each against the plain program."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import policy, sampling
from stepaudio_jax.core.types import Experience, Replies
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rl import grpo
from stepaudio_jax.sampling.program import BLOCK
from stepaudio_jax.text import thoughts as thoughts_lib
from tests.models.batches import SIZE, random_params, speech_batch
from tests.test_sampling import forward, host, joined, log_softmax

CLOSERS = range(20, 34)  # each of these ids is a whole "</think>"
TEXTS = ["x"] * SIZE.vocabulary
TEXTS[90:94] = ["</", "think", ">", "\n"]
TEXTS[20:34] = ["</think>"] * len(CLOSERS)
AFTER_SV = thoughts_lib._after([text.encode() for text in TEXTS])
THOUGHTS = thoughts_lib.Thoughts((93, 90, 91, 92, 93), AFTER_SV)
COPIES, NEW, BUDGET, SLOTS = 3, 27, 4, 4


class Counted(StepAudio):
  """Counts how often `extend` runs, and on how many rows."""

  ran: ClassVar[list[int]] = []

  def extend(self, token_BT, *args):
    rows = token_BT.shape[0]
    jax.debug.callback(lambda: self.ran.append(rows))
    return super().extend(token_BT, *args)


OPTIONS = {"model": Counted(SIZE), "max_new_tokens": NEW, "pad_id": 95}
OPTIONS |= {"stop_ids": tuple(range(1, 97, 16)), "copies": COPIES, "temperature": 0.9}


@pytest.fixture(scope="module")
def params():
  return random_params(SIZE, seed=3)


@pytest.fixture(scope="module")
def prompts():
  """Four prompts; the third row has none."""
  batch = speech_batch((30, 25, 17, 40), seed=5)
  batch.segment_BT[2] = 0
  return batch


def sampled(params, prompts, **changed):
  """A rollout on the host, and the rows of each run of `extend`."""
  Counted.ran.clear()
  rollout = sampling.sample(params, prompts, jax.random.key(2), **OPTIONS, **changed)
  rollout = host(rollout)
  jax.effects_barrier()
  return rollout, list(Counted.ran)


@pytest.fixture(scope="module")
def open_(params, prompts):
  return sampled(params, prompts)


@pytest.fixture(scope="module")
def closed(params, prompts):
  return sampled(params, prompts, max_think_tokens=BUDGET, thoughts=THOUGHTS)


@pytest.fixture(scope="module")
def refilled(params, prompts):
  known = {"max_think_tokens": BUDGET, "thoughts": THOUGHTS}
  return sampled(params, prompts, slots=SLOTS, **known)


def in_time(tokens):
  """Whether a reply closed its thought, or ended, within the budget."""
  return bool(np.isin(tokens[:BUDGET], [*CLOSERS, *OPTIONS["stop_ids"]]).any())


def test_thoughts_are_closed_after_the_budget_and_no_other_is_touched(open_, closed):
  """Expected tokens from those that nothing closed: the streams are the same."""
  free, rollout = open_[0], closed[0]
  told = []
  for row in range(4 * COPIES):
    count, mask_T = rollout.count_B[row], rollout.mask_BT[row]
    tokens = free.token_BT[row][: free.count_B[row]]
    if in_time(tokens) or not len(tokens):
      assert rollout.token_BT[row].tolist() == free.token_BT[row].tolist()
      np.testing.assert_array_equal(rollout.logprob_BT[row], free.logprob_BT[row])
      assert mask_T.sum() == count == free.count_B[row]
      told.append("closed" if len(tokens) else "empty")
      continue
    stop = BUDGET + len(THOUGHTS.closing_ids)
    assert rollout.token_BT[row][:BUDGET].tolist() == tokens[:BUDGET].tolist()
    assert rollout.token_BT[row][BUDGET:stop].tolist() == [93, 90, 91, 92, 93]
    assert np.flatnonzero(~mask_T[:count]).tolist() == [*range(BUDGET, stop)]
    assert not rollout.logprob_BT[row][BUDGET:stop].any()
    assert count > stop
    assert mask_T.sum() == count - len(THOUGHTS.closing_ids)
    told.append("forced")
  assert min(map(told.count, ("closed", "forced", "empty"))) >= 2, told


def test_log_probs_behind_a_closed_thought_are_those_of_the_full_forward_pass(
  params, prompts, closed
):
  rollout, prompt_B = closed[0], np.repeat((prompts.segment_BT > 0).sum(1), COPIES)
  said_BT = np.arange(NEW)[None] < rollout.count_B[:, None]
  asked = jax.tree.map(lambda x: np.repeat(x, COPIES, axis=0), prompts)
  whole = joined(asked, dataclasses.replace(rollout, mask_BT=said_BT))
  logits_BTV = np.asarray(forward(params, whole))
  checked = 0
  for row in np.flatnonzero(rollout.mask_BT.sum(1) < rollout.count_B):
    count = rollout.count_B[row]
    before_TV = logits_BTV[row, prompt_B[row] - 1 :][:count] / 0.9
    reply = rollout.token_BT[row][:count]
    want_T = log_softmax(before_TV)[np.arange(count), reply]
    drawn_T = rollout.mask_BT[row][:count]
    got_T = rollout.logprob_BT[row][:count]
    np.testing.assert_allclose(got_T[drawn_T], want_T[drawn_T], atol=1e-5)
    checked += drawn_T[BUDGET:].sum()
  assert checked > 8


def test_refilled_slots_say_what_all_at_once_say(closed, refilled):
  ours, theirs = refilled[0], closed[0]
  for name in ("token_BT", "mask_BT", "count_B", "truncated_B"):
    np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)
  np.testing.assert_allclose(ours.logprob_BT, theirs.logprob_BT, atol=1e-5)
  assert len(set(theirs.count_B.tolist())) > 4
  assert len(set(theirs.truncated_B.tolist())) == 2


def blocks_of_slots(count_B, truncated_B, slots):
  """Runs of `extend` by a queue in plain Python; a reply's first token costs none."""
  open_ = zip(count_B.tolist(), truncated_B.tolist(), strict=True)
  queue = [n - 1 for n, _ in open_ if n > 1]
  busy, runs = [], 0
  while queue or busy:
    while queue and len(busy) < slots:
      busy.append(queue.pop(0))
    runs += min(BLOCK, max(busy))
    busy = [left - BLOCK for left in busy if left > BLOCK]
  return runs


def test_slots_are_filled_between_blocks(closed, refilled):
  """Runs of the decoder as a queue in Python counts them, each on `SLOTS` rows."""
  rollout, ran = refilled
  want = blocks_of_slots(rollout.count_B, rollout.truncated_B, SLOTS)
  assert ran == [SLOTS] * want
  rows = 4 * COPIES
  assert closed[1] == [rows] * (closed[0].count_B.max() - 1)
  assert sum(ran) < sum(closed[1])


def test_as_many_slots_as_replies_are_the_plain_program(params, prompts, open_):
  rollout, ran = sampled(params, prompts, slots=99)
  np.testing.assert_array_equal(rollout.logprob_BT, open_[0].logprob_BT)
  assert ran == open_[1]


def test_no_gradient_comes_from_tokens_that_closed_a_thought(monkeypatch):
  """Of the loss with a KL, by the log-probabilities that a model would have given."""
  mask_BT = np.ones((4, 6), bool)
  mask_BT[1, 2:4] = mask_BT[2, :2] = False
  scores = lambda params, *_: (params, 0 * params)  # noqa: E731
  monkeypatch.setattr(policy, "_scores", scores)
  loss_fn = policy.policy_loss(
    None,
    grpo,
    {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0},
    estimator="k2",
    aggregation="token_mean",
    temperature=1.0,
  )
  x_BT = np.random.default_rng(1).normal(-2, 0.5, mask_BT.shape).astype(np.float32)
  one_BC = np.ones((4, 1), np.float32)
  experience = Experience(
    mask_BT, x_BT, x_BT, *(x_BT + 1,), *(one_BC,) * 2, *(x_BT,) * 3
  )
  replies = Replies(None, x_BT.reshape(2, 2, 6), np.full((2, 2), 6))
  update = policy.grouped(replies, experience, 0.1)
  gradient = jax.grad(lambda now: loss_fn(now, update, None)[0])
  gradient_BT = gradient(jnp.asarray(x_BT).reshape(2, 2, 6)).reshape(4, 6)
  np.testing.assert_array_equal(np.asarray(gradient_BT) != 0, mask_BT)


CHILD = """
import re
import jax
from stepaudio_jax import meshes, sampling, sharding
from tests.models.batches import SIZE, random_params, speech_batch
from tests.test_refilling import OPTIONS, SLOTS

mesh = meshes.mesh({"data": 4, "fsdp": 1, "tensor": 1, "context": 1})
params, key = random_params(SIZE, seed=3), jax.random.key(2)
prompts = speech_batch((30, 25, 17, 40), seed=5)
alone = sampling.sample(params, prompts, key, slots=SLOTS, **OPTIONS)
programs, jitted = [], sampling._sample

def noted(*arguments, **known):
  programs.append(jitted.lower(*arguments, **known).compile().as_text())
  return jitted(*arguments, **known)

sampling._sample = noted
with sharding.over(mesh):
  everywhere = sharding.replicated(mesh)
  spread = sampling.sample(
    jax.device_put(params, everywhere),
    sharding.put(prompts, mesh),
    jax.device_put(key, everywhere),
    slots=SLOTS,
    shares=4,
    **OPTIONS,
  )
moves = "all-gather|all-to-all|collective-permute"
moved = re.findall(rf"= (\\S+) (?:{moves})", programs[0])
assert not moved, moved
assert len(spread.token_BT.sharding.device_set) == 4
for name in ("token_BT", "mask_BT", "count_B", "truncated_B"):
  assert (getattr(alone, name) == jax.device_get(getattr(spread, name))).all(), name
print("equal", int(alone.count_B.sum()))
"""


@pytest.mark.slow
def test_slots_shared_out_over_devices_say_the_same():
  done = subprocess.run(
    [sys.executable, "-c", CHILD],
    cwd=pathlib.Path(__file__).parents[1],
    env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stdout.startswith("equal"), done.stderr


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"slots": -1}, "slots=-1"),
    ({"max_think_tokens": 5}, r"closing_ids=\(\)"),
    ({"max_think_tokens": 22, "thoughts": THOUGHTS}, "max_think_tokens=22"),
    ({"max_think_tokens": -1, "thoughts": THOUGHTS}, "max_think_tokens=-1"),
    (
      {"max_think_tokens": 5, "thoughts": THOUGHTS, "stop_ids": (93,)},
      r"closing_ids=\(93, 90, 91, 92, 93\)",
    ),
    (
      {
        "max_think_tokens": 5,
        "thoughts": dataclasses.replace(THOUGHTS, after_SV=AFTER_SV[:, :50]),
      },
      "thoughts of 50 ids, a vocabulary of 97",
    ),
  ],
)
def test_impossible_budgets_are_named(params, prompts, options, message):
  sample = functools.partial(sampling.sample, params, prompts, jax.random.key(0))
  with pytest.raises(ValueError, match=message):
    sample(**(OPTIONS | options))
