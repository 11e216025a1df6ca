"""Offline: where the policy gradient points under another reward.

The replies are those that a run kept; the policy is the one that the run started from,
so the ratio of new to old is 1 on every token (old log-probabilities are the start's
own). By the chain rule one forward pass serves all questions: the gradient of a
question's loss by the log-probabilities is cheap, and only pulling it back through the
model costs a backward pass each. A KL to the start itself has no gradient there, and no
question changes it; it is left out.

Replies of later steps were drawn by a policy that had moved: "moved" tells how far, in
nats per token. Those of the first step are the start's own.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import learner, meshes, origins, policy, sharding
from stepaudio_jax.ablate import intervals
from stepaudio_jax.ablate import saved as saved_lib
from stepaudio_jax.ablate.questions import Question
from stepaudio_jax.ablate.saved import Saved, Step
from stepaudio_jax.core import progress
from stepaudio_jax.core.types import Array, Batch, Experience, Params, Replies
from stepaudio_jax.data import loader
from stepaudio_jax.data.examples import Examples
from stepaudio_jax.evals.parts import hearing
from stepaudio_jax.models import step_audio
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rl.parts.aggregate import aggregate
from stepaudio_jax.rollout.keys import hyper
from stepaudio_jax.text import tokenizer as tokenizers

# Gradients of single blocks are only resampled, and kept as sketches of so many numbers
# (CountSketch; Charikar et al., ICALP 2002): a cosine of them is off by about 0.5 %.
_SKETCH = 1 << 16


@dataclasses.dataclass(frozen=True)
class Start:
  """The policy that a run started from, and its prompts.

  Attributes:
    params: {"adaptor", "decoder"} on the mesh.
  """

  config: ConfigDict
  model: StepAudio
  mesh: jax.sharding.Mesh
  params: Params
  feed: Examples


@dataclasses.dataclass(frozen=True)
class Gradients:
  """Of the policy loss on all replies, and on blocks of prompts.

  Attributes:
    total_QD: float32, by question, all parameters behind each other; sums of tokens'
      losses, whose divisor changes no direction.
    count_Q: the divisors.
    block_KQS: float32 sketches of the blocks' sums.
    moved: nats per token from the start to the policies that gave the replies.
  """

  total_QD: np.ndarray
  count_Q: np.ndarray
  block_KQS: np.ndarray
  moved: float


def start(saved: Saved) -> Start:
  """Loads what the run started from and opens its prompts.

  Raises:
    ValueError: dialogues were played: what was said before a turn is not in the rows.
    FileNotFoundError: the start is no longer where the run found it.
  """
  c = saved.config
  if c.sampling.turns != 1:
    raise ValueError(
      f"{saved.folder}: sampling.turns={c.sampling.turns}; gradients want prompts as "
      "the data has them (offline.gradient_steps=0 leaves them out)"
    )
  pinned = json.loads((saved.folder / "sources.json").read_text())
  size = origins.start_size(c.size, pinned["init"])
  mesh = meshes.mesh(c.mesh)
  held = dict.fromkeys(learner.SPEAKING, "float32") | {"encoder": c.dtype}
  axes = step_audio.axis_names(size)
  loaded = origins.load_params(pinned["init"], place=sharding.placer(mesh, axes, held))
  model = sharding.model(c, size, mesh)
  feed = loader.prompts(
    c.data,
    c.data.split,
    cache=epath.Path(c.data.cache) if c.data.cache else saved.folder / "cache",
    tokenizer=tokenizers.load(c.tokenizer),
    **hearing.frozen_encoder({"encoder": loaded["encoder"]}, model),
  )
  return Start(c, model, mesh, learner.speaking(loaded), feed)


def gradients(
  runs: Sequence[Saved], questions: Sequence[Question], blocks: int
) -> Gradients:
  """The gradient of every question on the replies of runs with one start.

  Args:
    blocks: of prompts, at most; all replies to a prompt are in one.

  Raises:
    ValueError: the runs did not start alike, or have other losses.
  """
  _check_alike(runs)
  begun = start(runs[0])
  block_of = _dealt([name for saved in runs for name in saved.prompts], blocks)
  pulled = jax.jit(functools.partial(_pulled, begun.config, begun.model, runs[0]))
  shape = (max(block_of.values()) + 1, len(questions), _SKETCH)
  sketches, totals, counts, moved = np.zeros(shape, np.float32), None, 0.0, np.zeros(2)
  with sharding.over(begun.mesh):
    for number, replies, given in _parts(runs, begun, questions, block_of):
      replies = sharding.put(replies, begun.mesh)
      found_Q, count_Q, apart = pulled(begun.params, replies, *given)
      found_QD = _flat(found_Q)
      totals = found_QD if totals is None else totals + found_QD
      counts = counts + np.asarray(count_Q)
      moved += np.asarray(apart)
      sketches[number] += sketched(found_QD)
  return Gradients(totals, counts, sketches, float(moved[0] / max(moved[1], 1)))


def _check_alike(runs: Sequence[Saved]) -> None:
  starts = {
    json.loads((saved.folder / "sources.json").read_text())["init"] for saved in runs
  }
  losses = {
    json.dumps(
      [
        *(hyper(saved.config), saved.config.aggregation, saved.samples),
        *(saved.config.sampling[name] for name in ("temperature", "max_new_tokens")),
      ]
    )
    for saved in runs
  }
  if len(starts) > 1 or len(losses) > 1:
    raise ValueError(
      f"gradients of several runs want one start and one loss, not {sorted(starts)} "
      f"and {sorted(losses)}"
    )


def _dealt(prompts: Sequence[str], blocks: int) -> dict[str, int]:
  """{prompt: its block}, as equally as it goes, in the order of their coming."""
  names = [*dict.fromkeys(prompts)]
  return {name: k % min(blocks, len(names)) for k, name in enumerate(names)}


def _parts(
  runs: Sequence[Saved],
  begun: Start,
  questions: Sequence[Question],
  block_of: Mapping[str, int],
) -> Iterator[tuple[int, Replies, tuple[np.ndarray, ...]]]:
  """(block, replies, (mask_QBT, advantage_QBT, logprob_BT)), all of one shape."""
  waiting: dict[int, list] = {}
  many = sum(len(saved.prompts) for saved in runs)
  size = _size(begun, many, 1 + max(block_of.values()))
  groups = progress.bar(_groups(runs, questions), "gradients", "prompt", total=many)
  for name, group in groups:
    some = waiting.setdefault(block_of[name], [])
    some.append((name, group))
    if len(some) == size:
      yield block_of[name], *_laid(begun, waiting.pop(block_of[name]), size)
  for number, some in waiting.items():
    yield number, *_laid(begun, some, size)


def _size(begun: Start, groups: int, blocks: int) -> int:
  """Prompts at a time: a block's, or as many as a step had, shared by the devices."""
  devices = sharding.row_devices(begun.mesh)
  wanted = min(math.ceil(groups / blocks), begun.config.prompts_per_step)
  return math.ceil(wanted / devices) * devices


# (mask_QGT, advantage_QGT, logprob_GT, token_GT, count_G) of a prompt's replies
Group = tuple[np.ndarray, ...]


def _groups(
  runs: Sequence[Saved], questions: Sequence[Question]
) -> Iterator[tuple[str, Group]]:
  for saved in runs:
    for step in saved.steps:
      found = [saved_lib.of_question(saved, step, asked) for asked in questions]
      mask_QBT = np.stack([np.asarray(e.mask_BT) for e in found])
      advantage_QBT = np.stack([np.asarray(e.advantage_BT) for e in found])
      for k, name in enumerate(step.prompts):
        own = slice(k * saved.samples, (k + 1) * saved.samples)
        yield name, (mask_QBT[:, own], advantage_QBT[:, own], *_said(step, own))


def _said(step: Step, own: slice) -> tuple[np.ndarray, ...]:
  return step.logprob_BT[own], step.token_BT[own], step.count_B[own]


def _laid(
  begun: Start, groups: Sequence[tuple[str, Group]], size: int
) -> tuple[Replies, tuple[np.ndarray, ...]]:
  """So many groups as one batch; those lacking are the first again without replies."""
  names = [name for name, _ in groups]
  lacking = size - len(names)
  parts = [*zip(*(group for _, group in groups), strict=True)]
  mask, advantage, logprob, token, count = (
    np.stack([*part, *[np.zeros_like(part[0])] * lacking]) for part in parts
  )
  prompts = _prompts(begun.feed, [*names, *names[:1] * lacking])
  replies = Replies(prompts, token, count)
  by_question = (np.moveaxis(x, 0, 1) for x in (mask, advantage))
  mask_QBT, advantage_QBT = (x.reshape(len(x), -1, x.shape[-1]) for x in by_question)
  return replies, (mask_QBT, advantage_QBT, logprob.reshape(-1, logprob.shape[-1]))


def _prompts(feed: Examples, names: Sequence[str]) -> Batch:
  places = [feed.place(name) for name in names]
  return feed.batch([[place] for place in places], first_number=0, limits=feed.limits)


def _pulled(
  c: ConfigDict,
  model: StepAudio,
  saved: Saved,
  params: Params,
  replies: Replies,
  mask_QBT: Array,
  advantage_QBT: Array,
  logprob_BT: Array,
) -> tuple[Params, Array, Array]:
  """The loss's gradients by question, their divisors, and how far policies moved."""
  read = functools.partial(
    policy.logprobs,
    replies=replies,
    model=model,
    temperature=c.sampling.temperature,
  )
  now_BQT, back = jax.vjp(read, params)
  now_BT = now_BQT.reshape(-1, now_BQT.shape[-1])
  total = functools.partial(_total, c, saved, now_BT)
  cotangent_QBT, count_Q = jax.vmap(jax.grad(total, has_aux=True), (None, 0, 0))(
    now_BT, mask_QBT, advantage_QBT
  )
  found = jax.lax.map(lambda x_BT: back(x_BT.reshape(now_BQT.shape))[0], cotangent_QBT)
  drawn_BT = mask_QBT.any(0)
  apart = jnp.where(drawn_BT, logprob_BT - now_BT, 0.0).sum()
  return found, count_Q, jnp.stack([apart, drawn_BT.sum(dtype=jnp.float32)])


def _total(
  c: ConfigDict,
  saved: Saved,
  old_BT: Array,
  now_BT: Array,
  mask_BT: Array,
  advantage_BT: Array,
) -> tuple[Array, Array]:
  """The policy's loss as a sum, and its divisor."""
  kept_BT = jnp.where(mask_BT, old_BT, 0.0)
  experience = _at_the_start(mask_BT, kept_BT, advantage_BT)
  now_BT = jnp.where(mask_BT, now_BT, 0.0)
  loss_BT, _ = saved.algorithm.token_loss(now_BT, experience, **hyper(c))
  constant = c.sampling.max_new_tokens if c.aggregation == "constant" else None
  loss = aggregate(loss_BT, mask_BT, c.aggregation, constant)
  return loss.total, loss.count


def _at_the_start(mask_BT: Array, old_BT: Array, advantage_BT: Array) -> Experience:
  zero_BT, zero_BC = jnp.zeros_like(old_BT), jnp.zeros((len(old_BT), 1))
  return Experience(
    mask_BT=mask_BT,
    sampler_BT=old_BT,
    old_BT=old_BT,
    reference_BT=old_BT,
    reward_BC=zero_BC,
    weight_BC=zero_BC,
    value_BT=zero_BT,
    advantage_BT=advantage_BT,
    return_BT=zero_BT,
  )


def _flat(found_Q: Params) -> np.ndarray:
  leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(found_Q)]
  return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def sketched(found_QD: np.ndarray) -> np.ndarray:
  """Sums of randomly signed entries in random places: inner products stay about."""
  generator = np.random.default_rng(0)
  place_D = generator.integers(_SKETCH, size=found_QD.shape[1])
  sign_D = generator.choice([-1.0, 1.0], size=found_QD.shape[1])
  rows = [np.bincount(place_D, x_D * sign_D, _SKETCH) for x_D in found_QD]
  return np.stack(rows).astype(np.float32)


def cosine(x_D: np.ndarray, y_D: np.ndarray) -> float:
  """NaN where one of them is 0."""
  x_D, y_D = x_D.astype(np.float64), y_D.astype(np.float64)
  scale = np.linalg.norm(x_D) * np.linalg.norm(y_D)
  return float(x_D @ y_D / scale) if scale > 0 else float("nan")


def compared(found: Gradients, questions: Sequence[Question], draws: int) -> Any:
  """{question: {"cosine" with the first one's gradient, "length" over its length}}.

  None where the first has no gradient: none of its replies has a reward and another.
  """
  weight_RK = intervals.drawn(len(found.block_KQS), draws)
  whole_D = found.total_QD[0] / max(found.count_Q[0], 1)
  whole = float(np.linalg.norm(whole_D))
  out = {}
  for k, asked in enumerate(questions):
    pair_D = found.total_QD[k] / max(found.count_Q[k], 1)
    many_R = _resampled(found.block_KQS[:, 0], found.block_KQS[:, k], weight_RK)
    out[asked.name] = {
      "cosine": intervals.bounds(cosine(whole_D, pair_D), many_R),
      "length": float(np.linalg.norm(pair_D)) / whole if whole else None,
    }
  return out


def _resampled(
  whole_KS: np.ndarray, other_KS: np.ndarray, weight_RK: np.ndarray
) -> np.ndarray:
  """cosine_R of the blocks' sums under each row of weights."""

  def product(x_KS: np.ndarray, y_KS: np.ndarray) -> np.ndarray:
    gram_KK = x_KS.astype(np.float64) @ y_KS.astype(np.float64).T
    return ((weight_RK @ gram_KK) * weight_RK).sum(1)

  scale_R = product(whole_KS, whole_KS) * product(other_KS, other_KS)
  with np.errstate(invalid="ignore", divide="ignore"):
    return product(whole_KS, other_KS) / np.sqrt(scale_R)
