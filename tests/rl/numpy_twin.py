"""The formulas of rl/ again, one number at a time, in plain Python loops."""

import math
import statistics

import numpy as np

NAN = math.nan


def group_advantages(reward_B, group, floor, scale=True):
  """(R − mean) / max(std, floor) of each reply; NaN where there is none."""
  out = []
  for start in range(0, len(reward_B), group):
    members = [float(r) for r in reward_B[start : start + group]]
    known = [r for r in members if math.isfinite(r)]
    for reward in members:
      if len(known) < 2 or not math.isfinite(reward):
        out.append(NAN)
        continue
      divisor = max(statistics.stdev(known), floor) if scale else 1.0
      out.append((reward - statistics.fmean(known)) / divisor)
  return out


def weighted_sums(reward_BC, weight_BC):
  out = []
  for row, weights in zip(reward_BC, weight_BC, strict=True):
    pairs = [(float(w), float(r)) for w, r in zip(weights, row, strict=True) if w != 0]
    known = all(math.isfinite(r) for _, r in pairs)
    out.append(math.fsum(w * r for w, r in pairs) if known else NAN)
  return out


def normalised(reward_BC, group, floor):
  columns = []
  for column in np.asarray(reward_BC).T:
    raw = group_advantages(column, group, floor)
    columns.append([min(max(a, -5.0), 5.0) if math.isfinite(a) else NAN for a in raw])
  return np.array(columns).T


def whitened(values):
  """Of a flat list; NaN stays NaN."""
  known = [v for v in values if math.isfinite(v)]
  if not known or statistics.pstdev(known) <= 1e-6:
    return [0.0 if math.isfinite(v) else NAN for v in values]
  mean, std = statistics.fmean(known), statistics.pstdev(known)
  return [(v - mean) / std for v in values]


def gae(reward_BT, value_BT, mask_BT, gamma, lambda_):
  """Each row shortened to its sampled tokens first, then summed forwards."""
  out = np.zeros(np.shape(reward_BT))
  for b, mask_T in enumerate(mask_BT):
    at = [t for t, inside in enumerate(mask_T) if inside]
    values = [float(value_BT[b][t]) for t in at] + [0.0]
    deltas = [
      float(reward_BT[b][t]) + gamma * values[i + 1] - values[i]
      for i, t in enumerate(at)
    ]
    for i, t in enumerate(at):
      out[b, t] = sum((gamma * lambda_) ** k * d for k, d in enumerate(deltas[i:]))
  return out


def clipped_loss(now_BT, old_BT, advantage_BT, mask_BT, low, high, dual):
  """As the papers write it: min and max of whole objectives."""
  out = np.zeros(np.shape(now_BT))
  for b, t in np.argwhere(mask_BT):
    advantage = float(advantage_BT[b][t])
    log_ratio = float(now_BT[b][t]) - float(old_BT[b][t])
    ratio = math.exp(min(max(log_ratio, -20.0), 20.0))
    inside = min(max(ratio, 1 - low), 1 + high)
    objective = min(ratio * advantage, inside * advantage)
    if dual and advantage < 0:
      objective = max(objective, dual * advantage)
    out[b, t] = -objective
  return out


def value_loss(value_BT, old_BT, return_BT, mask_BT, delta):
  out = np.zeros(np.shape(value_BT))
  for b, t in np.argwhere(mask_BT):
    value, old, target = (float(x[b][t]) for x in (value_BT, old_BT, return_BT))
    losses = [(value - target) ** 2]
    if delta:
      losses.append((old + min(max(value - old, -delta), delta) - target) ** 2)
    out[b, t] = max(losses) / 2
  return out


def kl(now, reference, estimator):
  d = min(max(now - reference, -20.0), 20.0)
  k3 = math.exp(-d) + d - 1
  return {"k1": d, "k2": d * d / 2, "k3": k3, "k3_k2": k3}[estimator]


def aggregate(loss_BT, mask_BT, how, constant=None):
  """(total, count)."""
  rows = []
  for loss_T, mask_T in zip(loss_BT, mask_BT, strict=True):
    rows.append([float(x) for x, m in zip(loss_T, mask_T, strict=True) if m])
  rows = [row for row in rows if row]
  if how == "token_mean":
    return sum(map(sum, rows)), sum(map(len, rows))
  if how == "constant":
    return sum(map(sum, rows)) / constant, len(rows)
  return sum(sum(row) / len(row) for row in rows), len(rows)


def dimension_statistics(reward_BC, weight_BC, group, floor):
  """List of one dict a dimension."""
  norm_BC = normalised(reward_BC, group, floor)
  parts = []
  for weight_B, norm_B in zip(np.asarray(weight_BC).T, norm_BC.T, strict=True):
    pairs = [(float(w), a) for w, a in zip(weight_B, norm_B, strict=True)]
    parts.append([abs(w * a) for w, a in pairs if math.isfinite(a)])
  whole = sum(map(sum, parts))
  out = []
  for column, norm_B, part in zip(reward_BC.T, norm_BC.T, parts, strict=True):
    known = [float(r) for r in column if math.isfinite(r)]
    spreads, flat = [], 0
    for start in range(0, len(column), group):
      members = [float(r) for r in column[start : start + group] if math.isfinite(r)]
      if len(members) >= 2:
        spreads.append(statistics.stdev(members))
      flat += len(members) < 2 or statistics.stdev(members) <= floor
    out.append(
      {
        "raw": _mean(known),
        "std": _mean(spreads),
        "norm": _mean([abs(a) for a in norm_B if math.isfinite(a)]),
        "weighted": _mean(part),
        "share": sum(part) / whole if part and whole else NAN,
        "no_spread": flat / (len(column) // group),
        "missing": 1 - len(known) / len(column),
      }
    )
  return out


def agreement(sampler_BT, old_BT, mask_BT):
  pairs = [
    (float(sampler_BT[b][t]), float(old_BT[b][t])) for b, t in np.argwhere(mask_BT)
  ]
  return {
    "max_abs": max(abs(x - y) for x, y in pairs),
    "pearson": statistics.correlation(*map(list, zip(*pairs, strict=True))),
    "mean_kl": statistics.fmean(kl(x, y, "k3") for x, y in pairs),
  }


def _mean(values):
  return statistics.fmean(values) if values else NAN
