"""Floating-point operations that a model asks for: the numerator of an MFU.

Two for each weight of a matrix and token, and attention to what a causal mask leaves;
nothing for what is computed again, for padding, or for norms and activations.
"""

from stepaudio_jax.core import tree
from stepaudio_jax.models import step_audio
from stepaudio_jax.models.sizes import Size


def weights(size: Size) -> tuple[int, int]:
  """Of matrices: of all the decoder's layers, and of its head."""
  leaves = tree.named_leaves(step_audio.abstract_params(size)["decoder"])
  kernels = {path: leaf.size for path, leaf in leaves if path.endswith("kernel")}
  head = kernels.pop("head/kernel")
  return sum(kernels.values()), head


def attention(size: Size, pairs: int) -> float:
  """Of (query, key) pairs: q·k and p·v in every head of every layer."""
  return 4.0 * size.layers * size.heads * size.head_width * pairs


def decoded(size: Size, rows: int, length: int, *, scored: int) -> float:
  """A forward pass over rows of tokens, `scored` of which go through the head."""
  layers, head = weights(size)
  attended = attention(size, rows * length * length // 2)
  return 2.0 * (layers * rows * length + head * scored) + attended


def continued(size: Size, rows: int, before: int, length: int) -> float:
  """A forward pass over rows that go on behind so many tokens, all through the head."""
  pairs = rows * (length * before + length * length // 2)
  return attention(size, pairs) + 2.0 * sum(weights(size)) * rows * length


def drawn(size: Size, context: int) -> float:
  """One more token that sees `context` others."""
  return 2.0 * sum(weights(size)) + attention(size, context)


def encoded(size: Size, frames: int) -> float:
  """A clip of so many mel frames through the encoder."""
  leaves = tree.named_leaves(step_audio.abstract_params(size)["encoder"])
  kernels = {path: leaf.size for path, leaf in leaves if path.endswith("kernel")}
  first = kernels.pop("conv1/kernel")
  positions = frames // 2
  attended = 4.0 * size.encoder_layers * size.encoder_width * positions**2
  return 2.0 * (first * frames + sum(kernels.values()) * positions) + attended
