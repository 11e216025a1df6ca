"""What is asked of a recipe's programs, and what one of them is."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from stepaudio_jax.fit import abstract
from stepaudio_jax.models.sizes import Size


@dataclasses.dataclass(frozen=True)
class Program:
  """One compiled program.

  Attributes:
    function, arguments: a jitted function, and what it is called with, abstract.
    flops: of the model alone, on the whole mesh.
    tokens: that a run reads or draws, on the whole mesh.
    runs: steps in one run that a reader would count, such as the tokens of a block.
    streamed: bytes that each chip must read from HBM in a step; None where products
      dominate.
    split: whether it is traced under the axis rules, as all but the encoder are.
  """

  name: str
  mesh: Mesh
  function: Callable
  arguments: tuple[Any, ...]
  flops: float
  tokens: int
  runs: int = 1
  streamed: int | None = None
  split: bool = True

  def lowered(self) -> jax.stages.Lowered:
    with abstract.over(self.mesh) if self.split else contextlib.nullcontext():
      return self.function.lower(*self.arguments)


@dataclasses.dataclass(frozen=True)
class Job:
  """What is asked of a recipe's programs.

  Attributes:
    c: the recipe.
    mesh: of training.
    sampling_mesh: of prefill and decoding, where weights are best split by heads alone.
    prompts, copies, new_tokens: replies to each of so many prompts.
  """

  c: ConfigDict
  size: Size
  mesh: Mesh
  sampling_mesh: Mesh
  prompts: int
  copies: int
  new_tokens: int
