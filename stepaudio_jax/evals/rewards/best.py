"""Best of n: the best by the proxy among n candidates, and what gold says of it.

From M candidates of a prompt the mean over all subsets of n, without drawing any: the
i-th worst by the proxy is the best of C(i−1, n−1) of the C(M, n) subsets (the unbiased
estimator of Nakano et al., arXiv 2112.09332, §3.4, with order statistics as in Stiennon
et al., arXiv 2009.01325). Candidates that the proxy finds equal share their gold.
Drawing n at temperature 1 and keeping the best is log n − (n−1)/n away from drawing one
(in KL), which is told beside it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepaudio_jax.data import panels
from stepaudio_jax.data.comparisons import OVERALL
from stepaudio_jax.evals.rewards.resampling import Draws

Row = dict[str, Any]


def curve(proxy_M: Sequence[float], gold_M: Sequence[float]) -> np.ndarray:
  """best_2N: mean proxy and mean gold of the best of n = 1…M candidates."""
  proxy_M, gold_M = np.asarray(proxy_M, np.float64), np.asarray(gold_M, np.float64)
  value_U, place_M, size_U = np.unique(proxy_M, return_inverse=True, return_counts=True)
  shared_U = np.bincount(place_M, gold_M) / size_U
  order_M = np.argsort(proxy_M, kind="stable")
  value_2M = np.stack([value_U[place_M], shared_U[place_M]])[:, order_M]
  return value_2M @ weights(len(proxy_M))


def weights(count: int) -> np.ndarray:
  """weight_MN: how often the i-th worst of M is the best of n."""
  return np.asarray(
    [
      [math.comb(i - 1, n - 1) / math.comb(count, n) for n in range(1, count + 1)]
      for i in range(1, count + 1)
    ]
  )


def kl(n: int) -> float:
  return math.log(n) - (n - 1) / n


def entry(groups: dict[str, tuple[Sequence[float], Sequence[float]]]) -> Row | None:
  """Proxy and gold of the best of n, over the prompts that have so many.

  n goes to the most candidates that at least half of the prompts have, and all figures
  are of those prompts alone, so that a curve is of one set of prompts. Intervals are
  over their dialogues. None: most have a single candidate.

  Args:
    groups: prompt → proxies and gold marks of its candidates.
  """
  sizes = sorted(len(proxy) for proxy, _ in groups.values())
  most = sizes[(len(sizes) - 1) // 2] if sizes else 0  # half have so many, or more
  if most < 2:
    return None
  kept = {name: pair for name, pair in groups.items() if len(pair[0]) >= most}
  best_P2N = np.asarray([curve(*pair)[:, :most] for pair in kept.values()])
  gain_P2N = best_P2N - best_P2N[:, :, :1]
  draws, one_P = Draws([*map(panels.dialogue_of, kept)]), np.ones(len(kept))
  return {
    "prompts": len(kept),
    "candidates": sum(len(pair[0]) for pair in kept.values()),
    "points": [
      {
        "n": n,
        "kl": kl(n),
        **{
          what: draws.ratio(best_P2N[:, k, n - 1], one_P)
          | {"gain": draws.ratio(gain_P2N[:, k, n - 1], one_P)}
          for k, what in enumerate(("proxy", "gold"))
        },
      }
      for n in range(1, most + 1)
    ],
  }


def groups(
  items: Sequence[Row], name: str
) -> dict[str, tuple[list[float], list[float]]]:
  """Different candidates of each task, with the head's reward and gold's mark.

  Those that gold did not mark are left out.
  """
  found: dict[str, dict[tuple[str, str], tuple[float, float]]] = {}
  for item in items:
    row = item["dimensions"][name]
    for k, candidate in enumerate(item["candidates"]):
      if row["marks"] is None:
        continue
      said = (candidate["text"], candidate["think"] or "")
      value = (row["reward"][k], row["marks"][k])
      found.setdefault(item["task_id"], {})[said] = value
  return {
    task: tuple(map(list, zip(*values.values(), strict=True)))
    for task, values in found.items()
  }


def chosen(dimensions: Sequence[str]) -> str:
  """The dimension by which one would choose: the overall one, or else the first."""
  return OVERALL if OVERALL in dimensions else dimensions[0]
