"""The heads of pre-alignment 0a; they teach the encoder to hear and are thrown away."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn

from stepaudio_jax.core.types import Array, Params


class HearingHeads(nn.Module):
  """For every frame: CTC symbols, and the class of each attribute of its clip.

  Asking every frame for what holds of the whole clip makes the encoder spread it over
  the clip, where a decoder that reads any audio token finds it.

  Attributes:
    symbols: number of CTC symbols, the blank (0) included.
    attributes: name → classes.
  """

  symbols: int
  attributes: Mapping[str, tuple[str, ...]]

  @nn.compact
  def __call__(self, frames_BUE: Array) -> tuple[Array, dict[str, Array]]:
    """Returns logits_BUV and {attribute: logits [B, U, classes]}."""
    symbols_BUV = nn.Dense(self.symbols, name="ctc")(frames_BUE)
    classes = {
      name: nn.Dense(len(choices), name=f"is_{name}")(frames_BUE)
      for name, choices in self.attributes.items()
    }
    return symbols_BUV, classes


def init_params(rng: Array, heads: HearingHeads, encoder_width: int) -> Params:
  """Fresh float32 parameters of the heads."""
  frames_BUE = jnp.zeros((1, 2, encoder_width))
  return heads.init(rng, frames_BUE)["params"]
