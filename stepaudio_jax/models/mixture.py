"""One score of all reward dimensions, weighted by what the prompt asks for (ArmoRM).

  score = Σ_k g_k · (r_k − λ_k · v),   g = softmax(MLP(prompt's last state) / τ)

(arXiv 2406.12845, eq. 3 and §3.2), v the log of the reply's tokens. Beside the paper:
v is always the length, no head is asked for it; the gate reads the state of this
decoder's last prompt token. The heads and the backbone are frozen while it is learnt.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Params
from stepaudio_jax.models import layers

NAME = "mixture"  # of the score, as one more dimension
_ABSENT = -1e30


class Gate(nn.Module):
  """States [..., D] → logits [..., C], float32."""

  hidden: int
  dimensions: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    def linear(width: int, name: str, gain: float) -> Any:
      return layers.Linear(
        (width,), (None, None), jnp.float32, bias=True, gain=gain, name=name
      )

    wide = jnp.tanh(linear(self.hidden, "hidden", 1.0)(x))
    return linear(self.dimensions, "gate", 0.0)(wide)  # at first all count alike


def init_params(
  rng: Array, width: int, mixed_C: tuple[bool, ...], *, hidden: int, temperature: float
) -> Params:
  """The gate's layers, and what no gradient moves: "temperature" [1], τ; "verbosity"
  [C], λ, still 0; "of" [C], 1 for the dimensions that are mixed.

  Raises:
    ValueError: nothing to be mixed, or a width or temperature that is not above 0.
  """
  if hidden < 1 or temperature <= 0 or not any(mixed_C):
    raise ValueError(
      f"a mixture of {sum(mixed_C)} dimensions with width={hidden} and temperature="
      f"{temperature}: all must be above 0"
    )
  gate = Gate(hidden, len(mixed_C))
  made = nn.meta.unbox(gate.init(rng, jnp.zeros((1, width)))["params"])
  return {
    **made,
    "temperature": jnp.full((1,), temperature, jnp.float32),
    "verbosity": jnp.zeros((len(mixed_C),), jnp.float32),
    "of": jnp.asarray(mixed_C, jnp.float32),
  }


def scores(
  params: Params, x_BID: Array, reward_BIC: Array, tokens_BIC: Array
) -> tuple[Array, Array]:
  """(score_BI, the gate's weights g_BIC); NaN where a reply has no reward.

  Args:
    x_BID: the state of each reply's prompt.
    tokens_BIC: of the view of the reply that a dimension reads.
  """
  hidden, dimensions = params["gate"]["kernel"].shape
  fixed = {
    name: layers.raised(jax.lax.stop_gradient(params[name]), 3)
    for name in ("temperature", "verbosity", "of")
  }
  layers_ = {name: params[name] for name in ("hidden", "gate")}
  logit_BIC = Gate(hidden, dimensions).apply({"params": layers_}, x_BID)
  logit_BIC = jnp.where(fixed["of"] > 0, logit_BIC / fixed["temperature"], _ABSENT)
  gate_BIC = jax.nn.softmax(logit_BIC)
  verbosity_BIC = jnp.log(jnp.maximum(tokens_BIC, 1).astype(jnp.float32))
  less_BIC = reward_BIC - fixed["verbosity"] * verbosity_BIC
  return (gate_BIC * less_BIC).sum(axis=-1), gate_BIC
