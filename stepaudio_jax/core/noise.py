"""Noise of learned rewards: how far they lie apart where raters see no difference.

Two replies to one prompt that raters call equal should have equal rewards. Their gap is
the noise of two rewards, so the noise of one is that of the gap over √2: the spread
that a group of equally good replies has within it, and so a floor for what a group's
rewards may be divided by (training.md §3). The scale of the gaps is taken from their
median: among pairs called equal some few are not, or are badly misjudged, and by root
mean square these would decide the floor of all near-ties. True differences too small to
be labelled are in it as well: it is an upper bound of the noise.

`noise.json` beside a reward model's `reward_model.json` keeps what was measured, with
the step that it was measured of.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax.core import files

FILE = "noise.json"
TIED = 0.5  # levels of the raters' mean choice (−3…3): nearer to 0 than to ±1
LEAST_PAIRS = 30  # that are tied; fewer tell no noise
_NORMAL = 0.6744897501960817  # median of |x| of a standard normal x
_RESAMPLES, _SEED = 1000, 0

Entry = dict[str, Any]


def measured(gap_N: np.ndarray, label_N: np.ndarray, dialogues: Sequence[str]) -> Entry:
  """The noise of one dimension's rewards, from pairs of replies.

  Args:
    gap_N: reward of the second reply minus that of the first.
    label_N: mean choice of the raters, −3…3; NaN where nobody chose.
    dialogues: of the pairs; the interval resamples whole ones.

  Returns:
    "pairs" that are tied; "std" of the noise with its 95 % interval "low", "high", and
    "rms", the same by root mean square: None where fewer than LEAST_PAIRS are tied.
  """
  tied_N = np.abs(label_N) < TIED  # False where it is NaN
  gap_T = np.abs(np.asarray(gap_N, np.float64)[tied_N])
  found: Entry = dict.fromkeys(("std", "low", "high", "rms"))
  if len(gap_T) >= LEAST_PAIRS:
    scale = 1 / (_NORMAL * math.sqrt(2))
    places = np.unique(np.asarray(dialogues)[tied_N], return_inverse=True)[1]
    low, high = np.quantile(_resampled(gap_T, places), [0.025, 0.975]) * scale
    found["std"] = float(np.median(gap_T) * scale)
    found |= {"low": float(low), "high": float(high)}
    found["rms"] = float(np.sqrt(np.square(gap_T).mean() / 2))
  return {"pairs": len(gap_T), **found}


def _resampled(gap_T: np.ndarray, places: np.ndarray) -> np.ndarray:
  """Medians of draws of whole dialogues."""
  rng = np.random.default_rng(_SEED)
  members = [np.flatnonzero(places == k) for k in range(places.max() + 1)]
  draws = rng.integers(len(members), size=(_RESAMPLES, len(members)))
  return np.asarray(
    [np.median(gap_T[np.concatenate([members[k] for k in row])]) for row in draws]
  )


def write(
  folder: epath.PathLike, step: int, data: str, entries: Mapping[str, Entry]
) -> None:
  """Writes noise.json into a reward model's workdir.

  Args:
    step: of the checkpoint that was measured.
    data: the file of the pairs.
    entries: {dimension: `measured`'s}.
  """
  row = {"step": step, "data": data, "dimensions": dict(entries)}
  with files.aside(epath.Path(folder) / FILE) as partial:
    partial.write_text(json.dumps(row, indent=1))


def read(
  folder: epath.PathLike, step: int, dimensions: Sequence[str]
) -> dict[str, float]:
  """{dimension: std of its noise} of a reward model's workdir.

  Raises:
    ValueError: nothing was measured of this step, or not of all these dimensions.
  """
  path = epath.Path(folder) / FILE
  how = (
    "measure it with python -m stepaudio_jax.evaluate --benchmark reward_model "
    f"--checkpoint {folder} --data …"
  )
  if not path.exists():
    raise ValueError(f"there is no {path} with the noise of the rewards; {how}")
  row = json.loads(path.read_text())
  if row["step"] != step:
    raise ValueError(f"{path} is of step {row['step']}, not of {step}; {how}")
  entries = row["dimensions"]
  known = {name: entry["std"] for name, entry in entries.items() if entry["std"]}
  lacking = {
    name: entries[name]["pairs"] if name in entries else "absent"
    for name in dimensions
    if name not in known
  }
  if lacking:
    raise ValueError(
      f"{path} tells no noise of {lacking} (pairs that raters call equal; at least "
      f"{LEAST_PAIRS}, and their rewards may not all be equal); it has {known}"
    )
  return {name: known[name] for name in dimensions}
