"""A file with what a judge's levels are worth, φ; judges/calibration.py measures it."""

import json

import numpy as np
from etils import epath

from stepaudio_jax.core import files, levels

_KIND = "phi/1"


def save(path: epath.PathLike, phi_6: np.ndarray, judge: dict, pairs: int) -> None:
  """Writes φ with the judge whose it is and the number of pairs behind it."""
  row = {"schema": _KIND, "phi": [*map(float, phi_6)], "judge": judge, "pairs": pairs}
  with files.aside(path) as partial:
    partial.write_text(json.dumps(row, indent=1))


def load(path: epath.PathLike) -> np.ndarray:
  """φ that `save` has written.

  Raises:
    ValueError: it is another file, or its φ is not antisymmetric or rises.
  """
  try:
    row = json.loads(epath.Path(path).read_text())
    phi_6 = np.asarray(row["phi"], np.float64)
    right = row["schema"] == _KIND and phi_6.shape == (levels.COUNT,)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(f"{path} holds no φ of levels: {error}") from error
  if not right or not (phi_6 == -phi_6[::-1]).all() or (np.diff(phi_6) > 0).any():
    raise ValueError(
      f"{path}: φ must be {levels.COUNT} numbers that fall and are antisymmetric, "
      f"schema {_KIND!r}; it is {row}"
    )
  return phi_6
