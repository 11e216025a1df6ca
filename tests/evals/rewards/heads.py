"""Comparisons made up for tests, as the arrays that statistics read."""

import numpy as np

from stepaudio_jax.evals.rewards.judged import Judged


def head(
  gap_N=None,
  label_NJ=(),
  *,
  name="naturalness",
  reward_N2=None,
  mark_N2=None,
  score_N2J=None,
  dialogues=None,
  turns_N=None,
  longer_N=None,
  other_N2=None,
):
  """`gap_N` in the place of rewards makes the first reply's 0."""
  if reward_N2 is None:
    reward_N2 = np.stack([np.zeros(len(gap_N)), gap_N], axis=1)
  count = len(reward_N2)
  if len(label_NJ) == 0:
    label_NJ = np.full((count, 1), np.nan)
  label_NJ = np.asarray(label_NJ, np.float64)
  raters = label_NJ.shape[1]
  return Judged(
    name=name,
    dialogues=tuple(dialogues or map(str, range(count))),
    turns_N=np.ones(count, int) if turns_N is None else np.asarray(turns_N),
    label_NJ=label_NJ,
    score_N2J=np.full((count, 2, raters), np.nan) if score_N2J is None else score_N2J,
    reward_N2=np.asarray(reward_N2, np.float64),
    mark_N2=np.full((count, 2), np.nan) if mark_N2 is None else np.asarray(mark_N2),
    longer_N=np.zeros(count) if longer_N is None else np.asarray(longer_N, np.float64),
    other_N2=other_N2 or {},
  )
