"""A head's scores read as marks of the raters' own scale.

Gold has few values and a head no two alike, so rank correlation punishes a head for
telling apart what gold calls equal, and its ceiling is below 1 (correlation.untied).
Read on the raters' grid both are alike: a score is worth the mean label that raters
gave to such scores (isotonic, scikit-learn), rounded to a label. Each reply is read by
what was fitted on the *other* dialogues, five folds; gold has no part in it.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.isotonic import IsotonicRegression

from stepaudio_jax.evals.rewards import calibration


def read(
  head_M: np.ndarray, label_M: np.ndarray, dialogues: Sequence[str]
) -> np.ndarray | None:
  """Scores as labels, whole numbers; None where nothing can be fitted.

  Args:
    label_M: the raters' mean label of each, NaN where there is none.
    dialogues: of each; all rows of one are in one fold.
  """
  fold_M = calibration.folds(list(dialogues))
  known_M = ~np.isnan(label_M)
  found_M = np.full(len(head_M), np.nan)
  for fold in range(fold_M.max() + 1):
    mine_M = fold_M == fold
    rest_M = known_M & ~mine_M
    if not rest_M.any():
      return None
    line = IsotonicRegression(out_of_bounds="clip")
    line.fit(head_M[rest_M], label_M[rest_M])
    found_M[mine_M] = np.rint(line.predict(head_M[mine_M]))
  return found_M
