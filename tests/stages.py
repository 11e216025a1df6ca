"""One small step of every stage: parameters, a batch and a loss, packed or not."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepaudio_jax import policy, preference_losses, steps
from stepaudio_jax.core.types import Comparisons, Experience, Replies
from stepaudio_jax.data import collate, packing
from stepaudio_jax.models import heads, step_audio
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rl import grpo, ppo
from stepaudio_jax.text.chat import Span
from tests import small

# Every width can be split over eight devices, and the heads over two.
SIZE = dataclasses.replace(small.SIZE, kv_heads=2)
ROWS, REPLIES, LENGTH = 16, 4, 10
CLIP = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}


@dataclasses.dataclass(frozen=True)
class Stage:
  """What one training step needs.

  Attributes:
    params: host arrays; all but "encoder" are trained.
    axes: step_audio.axis_names's.
    batch: host arrays whose first axis is to be split.
  """

  params: dict[str, Any]
  axes: dict[str, tuple]
  batch: Any
  loss_fn: Callable


def stage(batch, loss_fn, **parts) -> Stage:
  params = jax.device_get({**step_audio.init_params(jax.random.key(0), SIZE), **parts})
  rng = np.random.default_rng(5)
  # A bias that begins at 0 would be compared in units of its first, tiny gradients.
  moved = jax.tree.map(
    lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params
  )
  return Stage(moved, step_audio.axis_names(SIZE), batch, loss_fn)


def model(**options) -> StepAudio:
  return StepAudio(SIZE, **options)


def talks(count: int = 24, seed: int = 0) -> list[collate.Example]:
  """Examples of 6 to 14 tokens, every second with one clip."""
  rng = np.random.default_rng(seed)
  out = []
  for k in range(count):
    length = int(rng.integers(6, 15))
    token_T = rng.integers(5, SIZE.vocabulary, size=length).astype(np.int32)
    frames, spans = (), ()
    if k % 2:
      token_T[1:4] = 3  # the patch
      spans = (Span(0, 1, 3),)
      frames = (rng.normal(size=(6, SIZE.encoder_width)).astype(np.float32),)
    loss_T = np.arange(length) >= 4
    out.append(collate.Example(f"e{k}", 0, token_T, loss_T, spans, frames))
  return out


def sft(packed: bool | str = False, **options) -> Stage:
  """24 talks, one a row, or three in each of 8."""
  count, rows = (24, 8) if packed else (24, 24)
  rows = [[*talks(count)[k::rows]] for k in range(rows)]
  limits = collate.Limits(48 if packed else 16, 3 if packed else 1, 8)
  batch = collate.collate(rows, limits, pad_id=0, encoder_width=SIZE.encoder_width)
  return stage(batch, steps.next_token_loss(model(**options), ("a",)))


def replies(seed: int = 0, least: int = 1) -> Replies:
  """Of ragged lengths from `least` on, behind prompts with one clip each."""
  rng = np.random.default_rng(seed)
  shape = (ROWS, REPLIES, LENGTH)
  count_BQ = rng.integers(least, LENGTH + 1, size=shape[:2]).astype(np.int32)
  token_BQT = rng.integers(5, SIZE.vocabulary, size=shape).astype(np.int32)
  inside_BQT = np.arange(LENGTH) < count_BQ[..., None]
  prompts = small.dialogue_batch(rows=ROWS, seed=seed)
  return Replies(prompts, np.where(inside_BQT, token_BQT, 0), count_BQ)


def laid(packed: bool | str, given: Replies):
  """As they are, behind copies of their prompts, or ("prompts") behind shared ones."""
  shared = packed == "prompts"
  row_tokens = 20 + (2 * LENGTH if shared else LENGTH + 6)
  return packing.packed(given, 16, row_tokens, 0, shared=shared) if packed else given


def reward_model(packed: bool | str = False, **options) -> Stage:
  rng = np.random.default_rng(1)
  label_BJC = rng.integers(-3, 4, size=(ROWS, 2, 3)).astype(np.float32)
  label_BJC[rng.random(label_BJC.shape) < 0.3] = np.nan
  score_B2JC = rng.integers(1, 6, size=(ROWS, 2, 2, 3)).astype(np.float32)
  given = Comparisons(laid(packed, replies(least=2)), label_BJC, score_B2JC)
  if packed:
    given = dataclasses.replace(
      given, label_BJC=label_BJC[:, None], score_B2JC=score_B2JC[:, None]
    )
  rewards = heads.init_rewards(jax.random.key(2), SIZE.width, 3)
  loss_fn = preference_losses.preference_loss(
    model(**options),
    heads.RewardHeads(3),
    ("a", "b", "c"),
    (False, True, False),
    {"bradley_terry": 1.0, "regression": 0.5, "centring": 0.01},
    margin=0.1,
    scaled=False,
  )
  return stage(given, loss_fn, rewards=rewards)


def policy_gradient(algorithm: Any, packed: bool | str = False, **options) -> Stage:
  given, rng = replies(least=0), np.random.default_rng(3)
  mask_BT = (np.arange(LENGTH) < given.count_BQ[..., None]).reshape(-1, LENGTH)

  def noise(scale: float, shift: float = 0.0) -> jax.Array:
    noisy_BT = shift + scale * rng.normal(size=mask_BT.shape)
    return jnp.asarray(np.where(mask_BT, noisy_BT, 0.0), jnp.float32)

  old_BT = noise(0.1, shift=-3.4)
  experience = Experience(
    mask_BT=mask_BT,
    sampler_BT=old_BT,
    old_BT=old_BT,
    reference_BT=noise(0.1, shift=-3.4),
    reward_BC=np.zeros((len(mask_BT), 1), np.float32),
    weight_BC=np.ones((len(mask_BT), 1), np.float32),
    value_BT=noise(0.3),
    advantage_BT=noise(1.0, shift=0.5),
    return_BT=noise(1.0, shift=1.0),
  )
  extra = {} if algorithm is grpo else {"value_clip": 0.2}
  loss_fn = policy.policy_loss(
    model(**options),
    algorithm,
    CLIP | extra,
    estimator="k3_k2",
    aggregation="token_mean",
    temperature=0.9,
  )
  update = policy.grouped(laid(packed, given), experience, 0.05)
  parts = {}
  if algorithm is ppo:
    critic = step_audio.init_params(jax.random.key(4), SIZE)
    value = {
      "linear": {"kernel": 0.3 * jnp.ones((SIZE.width, 1)), "bias": jnp.zeros(1)}
    }
    speaking = {part: critic[part] for part in ("adaptor", "decoder")}
    parts["critic"] = {**speaking, "value": value}
  return stage(jax.device_get(update), loss_fn, **parts)


STAGES = {
  "sft": sft,
  "reward_model": reward_model,
  "grpo": functools.partial(policy_gradient, grpo),
  "ppo": functools.partial(policy_gradient, ppo),
}
