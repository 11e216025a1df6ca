"""Low-rank adapters of a checkpoint, and the plain weights that they amount to.

The part "adapters" of a run's parameters names what it adapts by its own paths:
"adapters/<path>/a" and "/b" belong to "decoder/<path>/kernel", and "adapters/scale" to
all (LoRA, arXiv 2106.09685, §4.1: W + (α/r)·A·B). Whoever reads parameters
(storage.Leaves) gets W with that in it and never sees the adapters; only the run's own
checkpoints hold both apart.
"""

from collections.abc import Iterable

import numpy as np

PART, ADAPTED, SCALE = "adapters", "decoder", "adapters/scale"


def is_part(path: str) -> bool:
  return path.split("/")[0] == PART


def pairs(paths: Iterable[str]) -> dict[str, tuple[str, str]]:
  """Path of each kernel that is adapted → those of its A and B."""
  known = set(paths)
  found = {}
  for path in sorted(known):
    if is_part(path) and path.endswith("/a"):
      room = path.removesuffix("/a")
      kernel = ADAPTED + room.removeprefix(PART) + "/kernel"
      if kernel not in known or f"{room}/b" not in known:
        raise ValueError(f"parameter {path} has no {kernel} or no {room}/b beside it")
      found[kernel] = path, f"{room}/b"
  return found


def merged(
  kernel: np.ndarray, a: np.ndarray, b: np.ndarray, scale: np.ndarray
) -> np.ndarray:
  """W + scale·A·B of every layer, summed in float32, in the kernel's own dtype.

  Args:
    kernel: [Z, *inputs, *outputs]. a: [Z, *inputs, r]. b: [Z, r, *outputs].
  """
  layers, rank = b.shape[:2]
  out = np.empty_like(kernel)
  for z in range(layers):
    change = a[z].reshape(-1, rank).astype(np.float32) @ b[z].reshape(rank, -1).astype(
      np.float32
    )
    change = scale.astype(np.float32) * change.reshape(kernel.shape[1:])
    out[z] = (kernel[z].astype(np.float32) + change).astype(kernel.dtype)
  return out
