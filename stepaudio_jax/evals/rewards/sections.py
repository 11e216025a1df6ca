"""The report's sections in Markdown; what the data do not allow is not there."""

from collections.abc import Iterator
from typing import Any

from stepaudio_jax.evals.parts import tables

Row = dict[str, Any]


def sections(result: Row) -> list[str]:
  """Paragraphs and tables, of a summary of evals/reward_model.py."""
  return [
    text
    for part in (
      _turns,
      _calibration,
      _spearman,
      _own,
      _sound,
      _lengths,
      _best,
      _optimised,
      _rest,
      _order,
    )
    for text in part(result)
  ]


def _turns(result: Row) -> Iterator[str]:
  entries = result["dimensions"]
  counts = sorted({n for one in entries.values() for n in one["turns"]}, key=int)
  yield "## By turns\n\nAccuracy by the dialogue's human turns (choices)."
  yield tables.table(
    ["dimension", *counts],
    [
      [
        name,
        *(
          f"{_share(one['turns'][n]['accuracy'])} ({one['turns'][n]['n']})"
          for n in counts
        ),
      ]
      for name, one in entries.items()
    ],
  )


def _calibration(result: Row) -> Iterator[str]:
  yield (
    "## Calibration\n\nP(second chosen) = σ(gap). Expected calibration error of ten "
    "bins of equal mass, as it is and after calibration by one slope, fitted on other "
    "dialogues (five folds). Log loss of guessing is 0.693."
  )
  rows = []
  for name, one in result["dimensions"].items():
    told = one["calibration"]
    before, after = told["before"], told["after"] or {}
    rows.append(
      [
        name,
        str(told["n"]),
        str(told["comparisons"]),
        _number(before["ece"], 3),
        _number(after.get("ece"), 3),
        _number(told["slope"]),
        _number(before["log_loss"], 3),
        _number(after.get("log_loss"), 3),
      ]
    )
  head = "dimension|choices|pairs|ECE|calibrated|slope|log loss|calibrated"
  yield tables.table(head.split("|"), rows)


def _spearman(result: Row) -> Iterator[str]:
  yield (
    "## Rank correlations\n\nSpearman's ρ over replies that raters scored 1…5, over "
    "pairs where they only chose. With labels: the raters' mean; `gold there` is what "
    "the truth reaches with the same labels. One label: how well the head, and the "
    "mean of the other raters, predicts a single one. With gold, as it is: the ceiling "
    "`untied` is what a score without ties can reach, since gold has many. With gold, "
    "on the grid: the head read as labels of the raters' scale, by what raters gave to "
    "such scores in other dialogues; its ceiling is gold without noise on that scale. "
    "The shares are of these ceilings."
  )
  rows = []
  for name, one in result["dimensions"].items():
    told = one["spearman"]
    labels, human, gold = (told[key] or {} for key in ("labels", "human", "gold"))
    rows.append(
      [
        f"{name} ({told['unit']})",
        _told(labels),
        _number(labels.get("ceiling")),
        _number(human.get("head")),
        _number(human.get("raters")),
        _told(gold),
        _number(gold.get("ceiling_untied")),
        tables.percent(gold.get("share_untied")),
        _told(gold.get("on_grid") or {}),
        _number(gold.get("ceiling_grid")),
        tables.percent(gold.get("share_grid")),
      ]
    )
  head = "dimension|with labels|gold there|one label: head|other raters|with gold"
  head += "|untied|share|on the grid|gold there|share"
  yield tables.table(head.split("|"), rows)


def _own(result: Row) -> Iterator[str]:
  own = result["own"]
  if own is None:
    return
  yield (
    "## Each head and its own dimension\n\nPartial rank correlation of each head (row) "
    f"with each gold dimension given all others, over {own['n']} replies. Lead: the "
    "own one less the largest other one in absolute value; above 0 the head measures "
    "its own dimension more than any other."
  )
  names = [*own["heads"]]
  yield tables.table(
    ["head", *names, "lead", "over"],
    [
      [
        name,
        *(_bold(_number(one["partial"][g]), g == name) for g in names),
        _told(one["lead"]),
        one["rival"],
      ]
      for name, one in own["heads"].items()
    ],
  )


def _sound(result: Row) -> Iterator[str]:
  entries = result["dimensions"]
  controls = [*next(iter(entries.values()))["sound"]]
  yield (
    "## With other sound\n\nAccuracy lost, paired, in points: `silence` of equal "
    "length, `swapped` with another dialogue's clips, `flat` speech without its "
    "melody. ✓: clearly lost where gold's truth depends on the clip (nothing is "
    "expected of flat speech there, whose words and median pitch stay), and not "
    "clearly lost elsewhere."
  )
  rows = []
  for name, one in entries.items():
    needs = next(iter(one["sound"].values()))["needs_audio"]
    drops = [
      f"{_points(one['sound'][c]['drop'])}{_mark(one['sound'][c]['as_expected'])}"
      for c in controls
    ]
    rows.append([name, {True: "yes", False: "no", None: "–"}[needs], *drops])
  yield tables.table(["dimension", "needs audio", *controls], rows)


def _lengths(result: Row) -> Iterator[str]:
  yield (
    "## Length and place\n\nLogit of choosing the second reply. Place: the intercept, "
    "below 0 the first is favoured. Length: for each unit of log(tokens of the second "
    "/ tokens of the first). ρ: of gap and that logarithm. Length-controlled: mean "
    "accuracy where the chosen reply is the longer and where it is the shorter."
  )
  rows = []
  for name, one in result["dimensions"].items():
    told = one["lengths"]
    rows.append(
      [
        name,
        *(_told(told[who][what]) for what in ("place", "length") for who in _WHO),
        _number(told["rho"]),
        _share(told["controlled"]),
      ]
    )
  head = [f"{what}: {who}" for what in ("place", "length") for who in _WHO]
  yield tables.table(["dimension", *head, "ρ", "length-controlled"], rows)


_WHO = ("raters", "model")


def _best(result: Row) -> Iterator[str]:
  curve = result["best_of_n"]["curve"]
  if curve is None:
    return
  yield (
    f"## Best of n\n\nOf n candidates the one with the highest "
    f"`{result['best_of_n']['dimension']}`, mean over all choices of n (unbiased), on "
    f"{curve['prompts']} prompts with {curve['candidates']} candidates "
    f"({tables.cell(result['best_of_n']['of'])}). Gain: over one."
  )
  yield tables.table(
    ["n", "√KL", "proxy", "gain", "gold", "gain"],
    [
      [
        str(point["n"]),
        _number(point["kl"] ** 0.5),
        *(
          _told(told)
          for what in ("proxy", "gold")
          for told in (point[what], point[what]["gain"])
        ),
      ]
      for point in curve["points"]
    ],
  )


def _optimised(result: Row) -> Iterator[str]:
  for run, points in result["optimised"].items():
    yield (
      f"## What was optimised\n\nHeld-out exams of `{run}`: KL to the reference in "
      "nats of whole replies, the objective that was maximised, and gold of the same "
      "replies."
    )
    yield tables.table(
      ["step", "replies", "√KL", "proxy", "gold"],
      [
        [
          str(point["step"]),
          str(point["replies"]),
          _number(point["root_kl"]),
          _told(point["proxy"]),
          _told(point["gold"]),
        ]
        for point in points
      ],
    )


def _rest(result: Row) -> Iterator[str]:
  between = result["between"]
  yield "## Between dimensions\n\nSpearman's ρ of gaps: heads / labels / gold."
  names = between["dimensions"]

  def cell(i: int, j: int) -> str:
    return " / ".join(
      _number(between[who] and between[who]["rho"][i][j])
      for who in ("heads", "labels", "gold")
    )

  yield tables.table(
    ["", *names[:-1]],
    [
      [name, *(cell(i, j) if j < i else "" for j in range(len(names) - 1))]
      for i, name in enumerate(names)
      if i
    ],
  )
  yield (
    "Order swaps: heads score each reply alone, so a gap changes its sign and "
    "nothing else when the replies change places, and nothing has to be parsed."
  )


def _order(result: Row) -> Iterator[str]:
  told = result["order"]["judge"]
  if told is None:
    return
  yield (
    f"## A judge in both orders\n\nVerdicts of `{told['of']}` on {told['pairs']} "
    f"pairs: {told['calls']} calls, {told['unread']} unread: masked, never 0. "
    f"Accuracy is that of {told['dimension']} choices."
  )
  rows = [
    ["accuracy, both orders", _share(told["accuracy"])],
    ["accuracy, one order", _share(told["one_order"])],
    ["both orders name one reply", _share(told["consistency"])],
    ["verdicts for the first-listed", _share(told["first"])],
    ["verdicts that could not be read", _share(told["failure_rate"])],
  ]
  yield tables.table(["of the judge", "share"], rows)


def _told(row: Row | None) -> str:
  if not row or row["value"] is None:
    return "–"
  return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _share(row: Row | None) -> str:
  if not row or row["value"] is None:
    return "–"
  return tables.percent(row["value"], row["low"], row["high"])


def _points(row: Row) -> str:
  low, high = 100 * row["low"], 100 * row["high"]
  return f"{100 * row['value']:.1f} [{low:.1f}, {high:.1f}]"


def _mark(expected: bool | None) -> str:
  return {True: " ✓", False: " ✗", None: ""}[expected]


def _bold(text: str, bold: bool) -> str:
  return f"**{text}**" if bold else text


def _number(value: float | None, digits: int = 2) -> str:
  return "–" if value is None else f"{value:.{digits}f}"
