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
  """Floor: one number, or one of every dimension."""
  columns = []
  for c, column in enumerate(np.asarray(reward_BC).T):
    own = floor[c] if isinstance(floor, tuple) else floor
    raw = group_advantages(column, group, own)
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


def sum_floor(floor, weights):
  """Of a weighted sum: the one number, or that of noises that add up."""
  if not isinstance(floor, tuple):
    return floor
  return math.sqrt(sum((w * f) ** 2 for w, f in zip(weights, floor, strict=True)))


def parts(reward_BC, weight_BC, group, floor, how):
  """What each dimension adds to each reply's advantage, one reply at a time."""
  reward_BC, weight_BC = np.asarray(reward_BC), np.asarray(weight_BC)
  out = np.full(reward_BC.shape, NAN)
  norm_BC = normalised(reward_BC, group, floor)
  totals = weighted_sums(reward_BC, weight_BC)
  for b, c in np.ndindex(reward_BC.shape):
    start = b - b % group
    known = [k for k in range(start, start + group) if math.isfinite(totals[k])]
    weight = float(weight_BC[b, c])
    if weight == 0:
      out[b, c] = 0.0
    elif how == "gdpo":
      out[b, c] = weight * norm_BC[b, c]
    elif b in known and len(known) >= 2:
      own = [float(weight_BC[k, c] * reward_BC[k, c]) for k in known]
      spread = statistics.stdev(totals[k] for k in known)
      apart = weight * float(reward_BC[b, c]) - statistics.fmean(own)
      out[b, c] = apart / max(spread, sum_floor(floor, weight_BC[b]))
  out[~np.isfinite(out).all(1)] = NAN
  return out


def dimension_statistics(reward_BC, weight_BC, group, floor, how):
  """List of one dict a dimension."""
  floors = floor if isinstance(floor, tuple) else (floor,) * reward_BC.shape[1]
  norm_BC = normalised(reward_BC, group, floor)
  part_BC = np.abs(parts(reward_BC, weight_BC, group, floor, how))
  whole = float(np.nansum(part_BC))
  out = []
  for c, column in enumerate(np.asarray(reward_BC).T):
    known = [float(r) for r in column if math.isfinite(r)]
    spreads, flat, asked = [], 0, 0
    for start in range(0, len(column), group):
      members = [float(r) for r in column[start : start + group] if math.isfinite(r)]
      if len(members) >= 2:
        spreads.append(statistics.stdev(members))
      if members or any(weight_BC[start : start + group, c]):
        asked += 1
        flat += len(members) < 2 or statistics.stdev(members) <= floors[c]
    norms = [abs(a) for a in norm_BC[:, c] if math.isfinite(a)]
    told = [
      float(a)
      for a, r in zip(part_BC[:, c], column, strict=True)
      if math.isfinite(a) and math.isfinite(r)
    ]
    share = float(np.nansum(part_BC[:, c])) / whole if norms and whole else NAN
    out.append(
      {
        "raw": _mean(known),
        "std": _mean(spreads),
        "norm": _mean(norms),
        "weighted": _mean(told),
        "share": share,
        "no_spread": flat / asked if asked else NAN,
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


def leave_one_out(reward_B, group):
  """R minus the mean of the other known ones of the group; NaN where there is none."""
  out = []
  for start in range(0, len(reward_B), group):
    members = [float(r) for r in reward_B[start : start + group]]
    for k, reward in enumerate(members):
      others = [r for j, r in enumerate(members) if j != k and math.isfinite(r)]
      alone = not others or not math.isfinite(reward)
      out.append(NAN if alone else reward - statistics.fmean(others))
  return out


def whitened_tokens(x_BT, mask_BT, aggregation):
  """(x − mean) / std of the tokens, or of the replies, each of weight 1."""
  rows = [
    [float(x) for x, m in zip(x_T, mask_T, strict=True) if m]
    for x_T, mask_T in zip(x_BT, mask_BT, strict=True)
  ]
  if aggregation == "sequence_mean_token_mean":

    def mean(function):
      return statistics.fmean(statistics.fmean(map(function, r)) for r in rows if r)

  else:

    def mean(function):
      return statistics.fmean(function(x) for row in rows for x in row)

  centre = mean(lambda x: x)
  spread = math.sqrt(mean(lambda x: (x - centre) ** 2))
  out = np.zeros(np.shape(x_BT))
  for b, t in np.argwhere(mask_BT):
    out[b, t] = (float(x_BT[b][t]) - centre) / spread if spread > 1e-6 else 0.0
  return out


def reward_to_go(total_B, kl_reward_BT, mask_BT):
  """R + Σ_{s≥t} of what the sampled tokens from t on were given."""
  out = np.zeros(np.shape(mask_BT))
  for b, t in np.argwhere(mask_BT):
    later = [s for s in range(t, len(mask_BT[b])) if mask_BT[b][s]]
    out[b, t] = total_B[b] + sum(float(kl_reward_BT[b][s]) for s in later)
  return out


def reply_ratio_loss(now_BT, old_BT, advantage_BT, mask_BT, low, high):
  """GSPO, as the paper writes it: min of whole objectives of a reply."""
  out = np.zeros(np.shape(now_BT))
  for b, mask_T in enumerate(mask_BT):
    at = [t for t, inside in enumerate(mask_T) if inside]
    if not at:
      continue
    mean = statistics.fmean(float(now_BT[b][t]) - float(old_BT[b][t]) for t in at)
    ratio = math.exp(min(max(mean, -20.0), 20.0))
    for t in at:
      advantage = float(advantage_BT[b][t])
      inside = min(max(ratio, 1 - low), 1 + high)
      out[b, t] = -min(ratio * advantage, inside * advantage)
  return out


def cispo_loss(now_BT, old_BT, advantage_BT, mask_BT, limit, frozen_BT=None):
  """−min(r, c)·A·log π, with r of `frozen_BT` where log π may move without it."""
  frozen_BT = now_BT if frozen_BT is None else frozen_BT
  out = np.zeros(np.shape(now_BT))
  for b, t in np.argwhere(mask_BT):
    log_ratio = float(frozen_BT[b][t]) - float(old_BT[b][t])
    weight = min(math.exp(min(max(log_ratio, -20.0), 20.0)), limit)
    out[b, t] = -weight * float(advantage_BT[b][t]) * float(now_BT[b][t])
  return out


def correction(old_BT, sampler_BT, mask_BT, kind, limit, low):
  """(weights, whether the bounds decided)."""
  weight_BT, decided_BT = np.zeros((2, *np.shape(old_BT)))
  for b, mask_T in enumerate(mask_BT):
    at = [t for t, inside in enumerate(mask_T) if inside]
    logs = {t: float(old_BT[b][t]) - float(sampler_BT[b][t]) for t in at}
    logs = {t: min(max(x, -20.0), 20.0) for t, x in logs.items()}
    if kind == "sequence_mask" and at:
      logs = dict.fromkeys(at, statistics.fmean(logs.values()))
    for t in at:
      ratio = math.exp(logs[t])
      outside = ratio > limit or ratio < low
      inside = 1.0 if kind == "sequence_mask" else ratio
      bound = min(max(ratio, low), limit) if kind == "tis" else 0.0
      weight_BT[b, t] = bound if outside else inside
      decided_BT[b, t] = outside
  return weight_BT, decided_BT
