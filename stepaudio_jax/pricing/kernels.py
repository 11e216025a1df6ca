"""Pallas kernels: the compiler says nothing about them, so they are priced by kind.

Splash attention: the flops of the blocks that its mask lets run, at the share of the
peak that the kernel's final machine schedule reaches (static cycles of its inner
blocks by libtpu, head width 128; memory stalls are not in it).
"""

import dataclasses
import functools
import json
import math
import re

from stepaudio_jax.pricing import hlo
from stepaudio_jax.pricing.chips import Chip

# Products of two [T, S] × head width matrices in each kernel: q·k and p·v; and so on.
_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}
_FUSED_BACKWARD = 5  # dkv that makes dq too
_DKV_RESULTS = 4  # of dkv alone: two accumulators, dk and dv
_SPLASH = re.compile(r"splash_m[hq]a_(fwd|dq|dkv)(_segmented)?")
# {chip: {block: {kernel: share of the peak}}}
_EFFICIENCY = {
  "v5p": {
    512: {"fwd": 0.46, "dkv": 0.71, "dq": 0.76},
    1024: {"fwd": 0.63, "dkv": 0.90, "dq": 0.92},
  },
  "v5e": {1024: {"fwd": 0.66, "dkv": 0.86, "dq": 0.87}},
  "v6e": {
    1024: {"fwd": 0.25, "dkv": 0.41, "dq": 0.40},
    2048: {"fwd": 0.28, "dkv": 0.44, "dq": 0.40},
  },
}


@dataclasses.dataclass(frozen=True)
class Kernel:
  """What is known of a kernel's work: `flops` that run, at `efficiency` of the peak."""

  flops: float
  efficiency: float

  def seconds(self, chip: Chip) -> float:
    return self.flops / (self.efficiency * chip.peak)


def kernel(computation: hlo.Computation, op: hlo.Op, chip: Chip) -> Kernel | None:
  """Of a "tpu_custom_call"; None where it is no kernel that is known here."""
  found, settings = _SPLASH.search(op.name), _settings(op)
  if found is None or settings is None:
    return None
  name, segmented = found.group(1), bool(found.group(2))
  arrays = [operand.arrays[0] for operand in computation.operands(op)]
  wide = [a for a in arrays if a.dtype in ("bf16", "f32") and len(a.dims) >= 3]
  queries, keys = wide[:2]
  *leading, query_length, width = queries.dims
  key_length = keys.dims[-2]
  # The queries' positions are an operand exactly where the mask is computed from them;
  # segments are two operands more.
  causal = sum(a.dtype == "s32" for a in arrays) > 2 * segmented
  suffix = "" if name == "fwd" else f"_{name}"
  blocks = settings[f"block_q{suffix}"], settings[f"block_kv{suffix}"]
  pairs = query_length * key_length
  if causal:
    pairs = _causal_pairs(query_length, key_length, *blocks)
  fused = name == "dkv" and len(op.arrays) > _DKV_RESULTS
  products = _FUSED_BACKWARD if fused else _PRODUCTS[name]
  flops = 2.0 * products * math.prod(leading) * pairs * width
  table = _EFFICIENCY[chip.name]
  nearest = min(table, key=lambda block: abs(block - max(blocks)))
  return Kernel(flops, table[nearest][name])


def _settings(op: hlo.Op) -> dict[str, int | bool] | None:
  """What jax writes beside a kernel, block sizes among it."""
  text = op.find(r'"xprof_metadata":"((?:[^"\\]|\\.)*)"')
  return text and json.loads(text.replace('\\"', '"'))


@functools.lru_cache(maxsize=256)
def _causal_pairs(queries: int, keys: int, block_q: int, block_kv: int) -> int:
  """(query, key) pairs in blocks that hold at least one visible pair."""
  ahead = keys - queries  # the last query sees all keys
  pairs = 0
  for start in range(0, queries, block_q):
    last = min(start + block_q, queries) - 1 + ahead
    seen = min(last // block_kv + 1, -(-keys // block_kv))
    pairs += min(block_q, queries - start) * min(seen * block_kv, keys)
  return pairs
