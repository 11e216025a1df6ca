"""Accuracies and means as tables and as a plot."""

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import matplotlib
import numpy as np
from absl import logging
from matplotlib import font_manager
from matplotlib.figure import Figure

OURS, SILENCE = "#2c6e9b", "#b9bfc6"
# For groups named in Chinese, as the Step benchmarks do; the first that is there.
CHINESE = (
  "Noto Sans CJK SC",
  "Noto Sans SC",
  "Source Han Sans SC",
  "WenQuanYi Zen Hei",
  "Microsoft YaHei",
  "PingFang SC",
  "Droid Sans Fallback",
)
_PEN = threading.Lock()  # matplotlib's settings are the whole process's
_NO_GLYPH = "Glyph "  # begins matplotlib's warnings of letters that no font has


def png(plot: Callable[[], Figure], file: Any) -> None:
  """Writes a picture; letters that no font has are boxes in it, told once."""
  with _PEN, _letters(), warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    plot().savefig(file, format="png", dpi=120)
  lacking = [one for one in found if str(one.message).startswith(_NO_GLYPH)]
  for one in found:
    if one not in lacking:
      warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
  if lacking:
    logging.warning("a plot lacks letters; a font for them: %s", " or ".join(CHINESE))


@contextlib.contextmanager
def _letters() -> Iterator[None]:
  known = {font.name for font in font_manager.fontManager.ttflist}
  chinese = [name for name in CHINESE if name in known][:1]
  with matplotlib.rc_context({"font.family": ["sans-serif", *chinese]}):
    yield


def told(settings: Mapping[str, Any]) -> str:
  """Settings in a line: those that are none are left out, lists are spelt out."""
  return ", ".join(
    f"{key} {_spelt(value)}"
    for key, value in settings.items()
    if value not in (None, "", (), [])
  )


def _spelt(value: Any) -> str:
  if isinstance(value, Mapping):
    return f"({told(value)})"
  if isinstance(value, list | tuple):
    return " ".join(map(str, value))
  return str(value)


def accuracy_table(entries: dict[str, dict[str, Any]]) -> str:
  """Markdown of accuracy.against_silence entries by name."""
  head = "task|n|accuracy|of answered|unparsed|failed|in silence|chance|beats silence"
  rows = [
    [
      name,
      str(entry["n"]),
      percent(entry["accuracy"], entry["low"], entry["high"]),
      percent(entry["accuracy_answered"]),
      str(entry["n_unparsed"]),
      str(entry["n_failed"]),
      _control(entry["silence"]),
      percent(entry["chance"]),
      {True: "yes", False: "no", None: "–"}[entry["beats_silence"]],
    ]
    for name, entry in entries.items()
  ]
  return table(head.split("|"), rows)


def _control(silence: dict[str, Any] | None) -> str:
  if silence is None:
    return "–"
  return percent(*(silence[key] for key in ("accuracy", "low", "high")))


def mean_table(entries: dict[str, dict[str, Any]]) -> str:
  """Markdown of accuracy.mean entries by name, each with one in silence."""
  rows = [
    [
      name,
      str(entry["n"]),
      _interval(entry),
      _interval(entry["silence"]) if entry["silence"] else "–",
    ]
    for name, entry in entries.items()
  ]
  return table(["dimension", "n", "mean", "in silence"], rows)


def accuracy_bars(title: str, entries: dict[str, dict[str, Any]]) -> Figure:
  """Accuracy and its interval beside that in silence, with a tick at chance."""
  figure = Figure(figsize=(1.8 + 1.1 * len(entries), 3.6), layout="constrained")
  axes = figure.subplots()
  place = np.arange(len(entries))
  controls = [entry["silence"] for entry in entries.values()]
  bars(axes, place - 0.2, list(entries.values()), OURS, "audio")
  if None not in controls:
    bars(axes, place + 0.2, controls, SILENCE, "silence")
  chance = [100 * entry["chance"] for entry in entries.values()]
  axes.hlines(
    chance, place - 0.42, place + 0.42, "#b3402f", "dashed", label="chance", lw=1.2
  )
  axes.set_xticks(place, list(entries))
  axes.set_ylim(0, 100)
  axes.set_ylabel("accuracy, %")
  axes.set_title(title, loc="left", fontsize=10)
  axes.spines[["top", "right"]].set_visible(False)
  figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
  return figure


def bars(
  axes: Any,
  place: np.ndarray,
  entries: list[dict[str, Any]],
  colour: str,
  label: str,
  width: float = 0.38,
) -> None:
  """Bars of accuracies with their intervals."""
  height, low, high = (
    np.asarray([100 * entry[key] for entry in entries])
    for key in ("accuracy", "low", "high")
  )
  axes.bar(place, height, width, color=colour, label=label)
  # Rounding may put a bound of 0 or 100 % past its own bar.
  ends = np.maximum([height - low, high - height], 0)
  axes.errorbar(place, height, ends, fmt="none", ecolor="#222222", capsize=3, lw=1)


def percent(
  share: float | None, low: float | None = None, high: float | None = None
) -> str:
  """ "12.3 % [10.0, 15.0]", or a dash where there is no share."""
  if share is None:
    return "–"
  text = f"{100 * share:.1f} %"
  return text if low is None else f"{text} [{100 * low:.1f}, {100 * high:.1f}]"


def _interval(entry: dict[str, Any]) -> str:
  return f"{entry['mean']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"


def cell(text: str) -> str:
  """Names come from folders and files: none ends a cell or opens a tag."""
  return text.replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def table(head: list[str], rows: list[list[str]]) -> str:
  """Markdown."""
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
