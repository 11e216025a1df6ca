"""Four policies on the same held-out dialogues: numbers and paired differences.

A difference is paired by dialogue, with a 95 % interval by the bootstrap over
dialogues; one whose interval holds zero is never called a difference.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from experiments import report_files
from stepaudio_jax.data.world import gold
from stepaudio_jax.evals.parts import intervals

START = "sft"
ARMS = {"rlvr": "RLVR", "rlvr_kl": "RLVR with KL", "rlhf": "RLHF"}
POLICIES = {START: "SFT start", **ARMS}
COLOURS = {"sft": 5, "rlvr": 2, "rlvr_kl": 1, "rlhf": 0}  # of report_style.css
PAIRS = (
  ("rlhf", "rlvr"),
  ("rlhf", "rlvr_kl"),
  *((arm, START) for arm in ARMS),
)
TASKS = {
  "pitch": "low, middle or high voice?",
  "rate": "slow, normal or fast speech?",
  "speakers": "one voice or two?",
  "emotion": "calm, excited, sad or angry?",
  "digits": "which digits, all of them, in order?",
  "memory": "what was said two turns ago?",
}
DIMENSIONS = {
  "correctness": "the answer is right",
  "acoustic_grounding": "the thought names what can be heard",
  "instruction": "does as it was asked",
  "naturalness": "talks as people talk",
  "emotional_continuity": "its tone fits the speaker's mood",
  "coherence": "of one mind, invents nothing",
}

Item = dict[str, Any]
Items = dict[str, Item]  # by dialogue, as heard


def worlds(folder: epath.Path) -> dict[str, dict[str, Any]]:
  """Every policy's evaluation.

  Raises:
    ValueError: policies that were not evaluated on the same tasks and dimensions.
  """
  found = {p: report_files.world(folder / p / "world.json") for p in POLICIES}
  for policy, world in found.items():
    for kind in ("tasks", "dimensions"):
      if [*world[kind]] != [*found[START][kind]]:
        raise ValueError(
          f"{folder / policy}: {kind} {[*world[kind]]}, but {START} has "
          f"{[*found[START][kind]]}"
        )
  return found


def heard(items: Mapping[str, Sequence[Item]]) -> dict[str, Items]:
  """Of every policy's items those with the sound, by dialogue.

  Raises:
    ValueError: policies that were not asked the same dialogues.
  """
  found = {
    policy: {row["id"]: row for row in rows if row["condition"] == "audio"}
    for policy, rows in items.items()
  }
  for policy, rows in found.items():
    odd = sorted(rows.keys() ^ found[START].keys())
    if odd:
      raise ValueError(f"{policy} and {START} were not asked the same: {odd[:5]}")
  return found


def right(item: Item) -> float:
  """1 if the answer is right; no answer, or none that can be read, is not."""
  return float(item["correct"] is True)


def mean_gold(item: Item) -> float | None:
  """Mean of the gold dimensions; None of an item that could not be asked."""
  scores = item["scores"].values()
  return sum(scores) / len(scores) if scores else None


def dimension(name: str) -> Callable[[Item], float | None]:
  return lambda item: item["scores"][name] if item["scores"] else None


def mean(items: Items, value: Callable[[Item], float | None]) -> dict[str, Any]:
  found = [v for v in map(value, items.values()) if v is not None]
  low, high = intervals.bootstrap(found)
  return {"mean": sum(found) / len(found), "low": low, "high": high, "n": len(found)}


def difference(
  first: Items, second: Items, value: Callable[[Item], float | None]
) -> dict[str, Any]:
  """Mean of first − second over the dialogues that both have a value of."""
  both = [(value(first[name]), value(second[name])) for name in sorted(first)]
  return difference_of([a - b for a, b in both if a is not None and b is not None])


def difference_of(gaps: Sequence[float]) -> dict[str, Any]:
  """{"mean", "low", "high", "n", "sign"} of paired differences."""
  low, high = intervals.bootstrap(gaps)
  out = {"mean": sum(gaps) / len(gaps), "low": low, "high": high, "n": len(gaps)}
  return out | {"sign": sign(out)}


def sign(part: Mapping[str, Any]) -> str:
  """ "up", "down", or "unclear" where the interval holds zero."""
  if part["low"] > 0:
    return "up"
  return "down" if part["high"] < 0 else "unclear"


def scoreboard(
  items: Mapping[str, Items], exams: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
  """Of every policy: gold mean, share right, and tokens and KL of sampled replies."""
  out = {}
  for policy, rows in items.items():
    exam, when = (exams[policy], "end") if policy in exams else (_any(exams), "start")
    out[policy] = {
      "title": POLICIES[policy],
      "colour": COLOURS[policy],
      "gold": mean(rows, mean_gold),
      "right": mean(rows, right),
      "tokens": exam["tokens"][when],
      "kl": exam["kl"][when],
    }
  return out


def _any(exams: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
  """All arms begin with the same replies of the same start."""
  return next(iter(exams.values()))


def differences(items: Mapping[str, Items]) -> list[dict[str, Any]]:
  """The comparisons of PAIRS, by gold mean, accuracy and gold dimension."""
  names = gold.DIMENSIONS
  return [
    {
      "pair": (a, b),
      "title": f"{POLICIES[a]} − {POLICIES[b]}",
      "gold": difference(items[a], items[b], mean_gold),
      "right": difference(items[a], items[b], right),
      "dimensions": {
        name: difference(items[a], items[b], dimension(name)) for name in names
      },
    }
    for a, b in PAIRS
  ]
