"""Rank correlations of heads with labels and with gold, and of heads with each other.

Over replies where raters have scored them (1…5), over pairs (gaps against signed
choices) where they have not. Spearman's ρ; 95 % intervals by bootstrap over dialogues,
ranks taken anew in each resample.

Two ceilings stand beside ρ with gold. `grid`: gold without any noise, told on the
raters' grid. `untied`: gold has many equal marks and a head has none, and a score
without ties cannot have a ρ of more than √(1 − Σ(t³−t) / (n³−n)) with marks that are
tied t by t, even if it puts every two unlike ones in order (its mid-ranks are gold's,
plus what correlates with nothing). Beside the first stands the head as the raters
would have told it (`on_grid`, marks.py), beside the second the head as it is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepaudio_jax.data.comparisons import MIXTURE, OVERALL
from stepaudio_jax.data.world import raters
from stepaudio_jax.evals.rewards import marks, resampling
from stepaudio_jax.evals.rewards.judged import Judged
from stepaudio_jax.evals.rewards.resampling import Draws

Row = dict[str, Any]


def entry(one: Judged) -> Row:
  """One head against labels and gold; None where there is none of them.

  "labels": ρ with the raters' mean, and gold's in its place (`ceiling`); "human": how
  well the mean of the other raters, and how well the head, predicts a single label;
  "gold": ρ with gold, its ceilings, and the shares of them that are reached.
  """
  unit = "replies" if np.isfinite(one.score_N2J).any() else "pairs"
  if unit == "replies":
    label_MJ = one.score_N2J.reshape(-1, one.score_N2J.shape[2])
    head_M, gold_M = one.reward_N2.reshape(-1), one.mark_N2.reshape(-1)
    dialogues, grid = np.repeat(one.dialogues, 2), _score
  else:
    label_MJ, head_M, gold_M = one.label_NJ, one.gap_N, one.gold_N
    dialogues, grid = np.asarray(one.dialogues), _choice
  mean_M = _mean(label_MJ)
  return {
    "unit": unit,
    "labels": _with_labels(head_M, mean_M, gold_M, dialogues),
    "human": _human(head_M, label_MJ),
    "gold": _with_gold(head_M, gold_M, grid, dialogues, mean_M),
  }


def _with_labels(
  head_M: np.ndarray,
  mean_M: np.ndarray,
  gold_M: np.ndarray,
  dialogues: np.ndarray,
) -> Row | None:
  known_M = ~np.isnan(mean_M)
  if known_M.sum() < 2:
    return None
  found = [head_M[known_M], mean_M[known_M]]
  if np.isfinite(gold_M[known_M]).all():
    found.append(gold_M[known_M])
  whole_VV, drawn_RVV = resampling.correlations(found, Draws(dialogues[known_M]))
  told = resampling.estimate(whole_VV[0, 1], drawn_RVV[:, 0, 1])
  ceiling = _number(whole_VV[2, 1]) if len(found) > 2 else None
  return {**told, "n": int(known_M.sum()), "ceiling": ceiling}


def _human(head_M: np.ndarray, label_MJ: np.ndarray) -> Row | None:
  """Every label beside the mean of the others of its row, over rows with several."""
  known_MJ = ~np.isnan(label_MJ)
  several_M = known_MJ.sum(axis=1) > 1
  m_P, j_P = np.nonzero(known_MJ & several_M[:, None])
  if not len(m_P):
    return None
  label_P = label_MJ[m_P, j_P]
  others_P = np.nansum(label_MJ, axis=1)[m_P] - label_P
  others_P = others_P / (known_MJ.sum(axis=1)[m_P] - 1)
  (corr_VV,) = resampling.spearman(
    np.stack([label_P, others_P, head_M[m_P]]), np.ones((1, len(m_P)))
  )
  raters_, head = _number(corr_VV[0, 1]), _number(corr_VV[0, 2])
  return {"raters": raters_, "head": head, "n": len(m_P)}


def _with_gold(
  head_M: np.ndarray,
  gold_M: np.ndarray,
  grid: Any,
  dialogues: np.ndarray,
  mean_M: np.ndarray,
) -> Row | None:
  known_M = np.isfinite(gold_M)
  if known_M.sum() < 2:
    return None
  head_M, gold_M, mean_M = head_M[known_M], gold_M[known_M], mean_M[known_M]
  dialogues = dialogues[known_M]
  mark_M = marks.read(head_M, mean_M, dialogues)
  values = [head_M, gold_M, grid(gold_M), *([] if mark_M is None else [mark_M])]
  whole_VV, drawn_RVV = resampling.correlations(values, Draws(dialogues))
  told = resampling.estimate(whole_VV[0, 1], drawn_RVV[:, 0, 1])
  on_grid = None
  if mark_M is not None:
    on_grid = resampling.estimate(whole_VV[3, 1], drawn_RVV[:, 3, 1])
  ceilings = {"grid": _number(whole_VV[2, 1]), "untied": untied(gold_M)}
  return {
    **told,
    "n": int(known_M.sum()),
    "on_grid": on_grid,
    **{f"ceiling_{name}": ceiling for name, ceiling in ceilings.items()},
    "share_grid": _share(on_grid, ceilings["grid"]),
    "share_untied": _share(told, ceilings["untied"]),
  }


def untied(value_M: np.ndarray) -> float | None:
  """ρ of a score without ties that orders all unlike values right; None of equal ones.

  It is the mean over all orders of the tied.
  """
  _, size_U = np.unique(value_M, return_counts=True)
  n, t_U = float(len(value_M)), size_U.astype(np.float64)
  left = 1 - (t_U**3 - t_U).sum() / (n**3 - n)
  return float(np.sqrt(left)) if left > 0 else None


def _share(told: Row | None, ceiling: float | None) -> float | None:
  if told is None or told["value"] is None or not ceiling:
    return None
  return told["value"] / ceiling


def _score(mark_M: np.ndarray) -> np.ndarray:
  """Noiseless marks as a rater's 1…5."""
  return np.clip(np.rint(mark_M), 1, 5)


def _choice(gap_M: np.ndarray) -> np.ndarray:
  """Noiseless gaps as a rater's −3…+3."""
  return np.asarray([raters.level(gap) for gap in gap_M], np.float64)


def own(heads: Sequence[Judged]) -> Row | None:
  """Whether each head measures its own gold dimension, and no other.

  Partial rank correlations over replies, head k with gold j *given all other gold
  dimensions*; `lead` is the own one less the largest absolute other one, and its
  interval's lower bound above 0 says "above every other". Only dimensions that gold
  itself marks, and not all alike, take part, so not "overall" and the mixture, which
  are means of the others. None: fewer than two of these.
  """
  marked = [
    one for one in heads if one.name not in (OVERALL, MIXTURE) and _marked(one.mark_N2)
  ]
  gold_GM = np.asarray([one.mark_N2.reshape(-1) for one in marked])
  if len(marked) < 2:
    return None
  value_VM = np.concatenate(
    [gold_GM, np.asarray([one.reward_N2.reshape(-1) for one in marked])]
  )
  draws = Draws(np.repeat(marked[0].dialogues, 2))
  whole_VV, drawn_RVV = resampling.correlations(value_VM, draws)
  whole_CG, drawn_RCG = partial(whole_VV[None])[0], partial(drawn_RVV)
  names = [one.name for one in marked]
  return {
    "n": value_VM.shape[1],
    "heads": {
      name: {
        "partial": {g: _number(whole_CG[c, k]) for k, g in enumerate(names)},
        "own": resampling.estimate(whole_CG[c, c], drawn_RCG[:, c, c]),
        "rival": names[_rival(whole_CG[c], c)],
        "lead": resampling.estimate(_lead(whole_CG[None], c)[0], _lead(drawn_RCG, c)),
      }
      for c, name in enumerate(names)
    },
  }


def _marked(mark_N2: np.ndarray) -> bool:
  return bool(np.isfinite(mark_N2).all() and np.ptp(mark_N2))


def partial(corr_RVV: np.ndarray) -> np.ndarray:
  """Partial correlations part_RCG from correlations of G gold marks, then C heads.

  Head c with mark g given the other marks: −P_cg / √(P_cc P_gg) of the inverse P of
  the correlations of this head and all marks. NaN where they have no inverse.
  """
  marks = corr_RVV.shape[1] // 2
  out = []
  for head in range(marks, corr_RVV.shape[1]):
    some = [*range(marks), head]
    precision_RUU = _inverse(corr_RVV[:, some][:, :, some])
    scale_RU = np.sqrt(np.diagonal(precision_RUU, axis1=1, axis2=2))
    out.append(-precision_RUU[:, -1, :-1] / (scale_RU[:, -1:] * scale_RU[:, :-1]))
  return np.stack(out, axis=1)


def _inverse(corr_RVV: np.ndarray) -> np.ndarray:
  usable_R = np.isfinite(corr_RVV).all(axis=(1, 2))
  identity_VV = np.eye(corr_RVV.shape[1])
  safe_RVV = np.where(usable_R[:, None, None], corr_RVV, identity_VV)
  usable_R &= np.linalg.eigvalsh(safe_RVV)[:, 0] > 1e-9
  safe_RVV = np.where(usable_R[:, None, None], safe_RVV, identity_VV)
  return np.where(usable_R[:, None, None], np.linalg.inv(safe_RVV), np.nan)


def _lead(part_RCG: np.ndarray, head: int) -> np.ndarray:
  others = [k for k in range(part_RCG.shape[2]) if k != head]
  return part_RCG[:, head, head] - np.abs(part_RCG[:, head, others]).max(axis=1)


def _rival(part_G: np.ndarray, head: int) -> int:
  size_G = np.abs(np.nan_to_num(part_G))
  size_G[head] = -1.0
  return int(size_G.argmax())


def between(heads: Sequence[Judged]) -> Row:
  """Rank correlations of the dimensions' gaps: of heads, of labels and of gold.

  A pair counts where it is known for every dimension; None: fewer than three such.
  """
  return {
    "dimensions": [one.name for one in heads],
    "heads": _matrix([one.gap_N for one in heads]),
    "labels": _matrix([_mean(one.label_NJ) for one in heads]),
    "gold": _matrix([one.gold_N for one in heads]),
  }


def _mean(label_NJ: np.ndarray) -> np.ndarray:
  known_N = (~np.isnan(label_NJ)).sum(axis=1)
  with np.errstate(invalid="ignore"):
    return np.nansum(label_NJ, axis=1) / known_N


def _matrix(value_CN: Sequence[np.ndarray]) -> Row | None:
  known_N = np.isfinite(value_CN).all(axis=0)
  n = int(known_N.sum())
  if n < 3:
    return None
  whole_CN = np.asarray(value_CN)[:, known_N]
  (corr_CC,) = resampling.spearman(whole_CN, np.ones((1, n)))
  return {"n": n, "rho": [[_number(x) for x in row] for row in corr_CC]}


def _number(value: float) -> float | None:
  return float(value) if np.isfinite(value) else None
