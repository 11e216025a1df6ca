"""Slices of TPUs that need not be there, and programs compiled for them.

Needs libtpu (`pip install "stepaudio_jax[tpu]"`), and no TPU.
"""

import dataclasses
import glob
import importlib.util
import os
import tempfile
import time
from typing import Any

import jax
from jax.experimental import topologies

from stepaudio_jax.pricing import chips, memory
from stepaudio_jax.pricing.collectives import Links

# Read when libtpu is loaded: no TPU is looked for or locked.
_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5p-8",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
EXAMPLES = ("v5e:4x4", "v6e:4x4", "v6e:16x16", "v5p:4x4x4", "v5p:4x4x8")

# Collectives beside the products, as MaxText's published runs compile them.
_ASYNCHRONOUS = {
  "xla_enable_async_all_gather": True,
  "xla_enable_async_collective_permute": True,
  "xla_tpu_data_parallel_opt_different_sized_ops": True,
  "xla_tpu_enable_async_collective_fusion": True,
  "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
  "xla_tpu_enable_data_parallel_all_reduce_opt": True,
  "xla_tpu_overlap_compute_collective_tc": True,
}
# On chips with sparse cores those run the collectives; without, matrix products do.
_SPARSE_CORES = _ASYNCHRONOUS | {
  "xla_sc_disable_megacore_partitioning": True,
  "xla_tpu_enable_ag_backward_pipelining": True,
  "xla_tpu_enable_async_collective_fusion_fuse_all_gather": False,
  "xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter": False,
  "xla_tpu_enable_sparse_core_collective_offload_2d_all_gather": True,
  "xla_tpu_enable_sparse_core_collective_offload_3d_all_gather": True,
  "xla_tpu_enable_sparse_core_collective_offload_all_gather": True,
  "xla_tpu_enable_sparse_core_collective_offload_nd_reduce_scatter": True,
  "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter": True,
  "xla_tpu_megacore_fusion_allow_ags": False,
  "xla_tpu_use_tc_device_shape_on_sc": True,
}
FLAGS = {
  "v5p": _SPARSE_CORES,
  "v5e": _ASYNCHRONOUS
  | {"xla_tpu_enable_async_collective_fusion_fuse_all_gather": True},
  "v6e": _SPARSE_CORES | {"xla_tpu_scoped_vmem_limit_kib": 98304},
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """A slice, such as "v5p:4x4x4"; `devices` are descriptions, no hardware."""

  name: str
  links: Links
  devices: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler made; `text` is None where the program does not fit."""

  text: str | None
  memory: memory.Memory
  seconds: float


def slice_of(name: str) -> Links:
  """Chips and torus of a slice's name.

  Raises:
    ValueError: no such chip, or no shape that it comes in.
  """
  chip_name, _, shape = name.partition(":")
  lengths = shape.split("x")
  examples = ", ".join(EXAMPLES)
  if chip_name not in chips.CHIPS or not all(map(str.isdigit, lengths)):
    raise ValueError(
      f"no topology {name!r}: it is CHIP:AxB or CHIP:AxBxC, with a chip of "
      f"{sorted(chips.CHIPS)}; for example {examples}"
    )
  chip = chips.chip(chip_name)
  dims = tuple(map(int, lengths))
  if len(dims) != chip.axes or min(dims) < 1:
    raise ValueError(
      f"no topology {name!r}: slices of {chip_name} have {chip.axes} axes; for example "
      f"{examples}"
    )
  wrap = tuple(length % chip.ring == 0 for length in dims)
  if chip.axes == 3:  # of whole cubes, or none of its axes closes
    wrap = (all(wrap),) * 3
  return Links(chip, dims, wrap)


def topology(name: str) -> Topology:
  """Describes a slice to the compiler.

  Raises:
    ValueError: no such slice, or libtpu is missing.
  """
  links = slice_of(name)
  if importlib.util.find_spec("libtpu") is None:
    raise ValueError(
      "libtpu, the compiler for TPUs, is not installed (a TPU is not needed): "
      'pip install -e ".[tpu]"'
    )
  for name_, value in _ENVIRONMENT.items():
    os.environ.setdefault(name_, value)
  wrap = (*links.wrap, *(False,) * (3 - len(links.wrap)))
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=name, **({"wrap": wrap} if any(wrap) else {})
    )
  except RuntimeError as error:
    raise ValueError(
      f"no topology {name!r}: {str(error).splitlines()[0]}; for example "
      f"{', '.join(EXAMPLES)}"
    ) from error
  return Topology(name, links, tuple(found.devices))


def compiled(lowered: jax.stages.Lowered, where: Topology) -> Compiled:
  """Compiles for the slice, with the flags of its chip.

  A program that needs more HBM than there is has a memory and no text.
  """
  chip = where.links.chip
  options = dict(FLAGS[chip.name])
  clock = time.perf_counter()
  try:
    made = lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    too_much = memory.exceeded(str(error), chip.hbm_bytes)
    if too_much is None:
      raise
    return Compiled(None, too_much, time.perf_counter() - clock)
  seconds = time.perf_counter() - clock
  found = memory.of(made.memory_analysis(), chip.hbm_bytes)
  return Compiled(_text(lowered, made, options), found, seconds)


def _text(
  lowered: jax.stages.Lowered, made: jax.stages.Compiled, options: dict[str, Any]
) -> str:
  """The scheduled program; from a second compilation's dump where it cannot be had.

  Some releases of libtpu cannot print a program that looks up an embedding.
  """
  try:
    return made.as_text()
  except jax.errors.JaxRuntimeError:
    with tempfile.TemporaryDirectory() as folder:
      dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
      lowered.compile(compiler_options=options | dump)
      files = glob.glob(f"{folder}/*.after_codegen.txt")
      files = files or glob.glob(f"{folder}/*.after_optimizations.txt")
      if not files:
        raise
      with open(max(files, key=os.path.getsize), encoding="utf-8") as file:
        return file.read()
