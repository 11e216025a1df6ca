"""What the numbers say, in sentences that claim no more than the intervals."""

from collections.abc import Sequence
from typing import Any

from experiments import report_policies
from experiments.report_words import listed, point_span, points, signed, span


def verdict(
  compared: Sequence[dict[str, Any]], tasks: dict[str, Any]
) -> dict[str, Any]:
  """The headline and the sentences under it.

  Args:
    compared: report_policies.differences.
    tasks: of the SFT start, for what it hears.
  """
  by_pair = {row["pair"]: row for row in compared}
  main, control = by_pair["rlhf", "rlvr"], by_pair["rlhf", "rlvr_kl"]
  lines = [_against("RLVR", main), _against("RLVR with RLHF's KL", control)]
  lines += [
    _since_start([by_pair[arm, report_policies.START] for arm in report_policies.ARMS]),
    hearing(tasks),
  ]
  return {"title": title(main["gold"]["sign"], main["right"]["sign"]), "lines": lines}


def title(gold_sign: str, right_sign: str) -> str:
  """Of RLHF against RLVR: signs of the differences in gold mean and in accuracy."""
  pleases = {"up": "RLHF", "down": "RLVR"}
  liked, correct = pleases.get(gold_sign), pleases.get(right_sign)
  if liked is None and correct is None:
    return "RLHF or RLVR: this run shows no clear difference."
  if liked is None:
    return f"{correct} is right more often; gold scores show no clear difference."
  if correct is None:
    return f"{liked} scores higher; accuracy shows no clear difference."
  if liked == correct:
    return f"{liked} scores higher and is right more often."
  return f"{liked} scores higher, {correct} is right more often."


def _against(other: str, row: dict[str, Any]) -> str:
  gold, right = row["gold"], row["right"]
  tail = {
    (True, True): "; both intervals hold zero",
    (True, False): "; the first interval holds zero",
    (False, True): "; the second interval holds zero",
    (False, False): "",
  }[gold["sign"] == "unclear", right["sign"] == "unclear"]
  return (
    f"RLHF against {other}: {signed(gold['mean'])} on the gold mean ({span(gold)}), "
    f"{points(right['mean'])} points of accuracy ({point_span(right)}){tail}."
  )


def _since_start(rows: Sequence[dict[str, Any]]) -> str:
  """Which arms left the SFT start behind, by the gold mean."""
  parts = []
  places = {
    "up": "above the SFT start",
    "down": "below the SFT start",
    "unclear": "not clearly away from the SFT start",
  }
  for sign_, where in places.items():
    names = [
      report_policies.ARMS[row["pair"][0]]
      for row in rows
      if row["gold"]["sign"] == sign_
    ]
    if names:
      parts.append(f"{listed(names)} {'are' if len(names) > 1 else 'is'} {where}")
  return f"On the gold mean, {'; '.join(parts)}."


def hearing(tasks: dict[str, Any]) -> str:
  """On which tasks the sound helps the SFT start."""
  asked = {name: task for name, task in tasks.items() if task["silence"] is not None}
  if not asked:
    return "What the sound adds was not measured: no control on silence was run."
  helped = [name for name, task in asked.items() if task["beats_silence"]]
  if not helped:
    return "The SFT start does not hear: on no task does the sound clearly help."
  return (
    f"The SFT start hears on {len(helped)} of {len(asked)} tasks ({listed(helped)}): "
    "it is right more often with the sound than on silence of equal length."
  )
