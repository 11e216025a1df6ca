"""From a benchmark's items to one page that shows and plays them."""

import base64
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import markupsafe
from etils import epath

from stepaudio_jax.core import files, progress
from stepaudio_jax.evals.parts import results as results_lib
from stepaudio_jax.pages import sounds, templates

LIMIT, AUDIO_MB = 1000, 40.0
HERE = pathlib.Path(__file__).parent
SCRIPTS = ("list.js", "item.js")
_SHOWN = (
  *("id", "condition", "sample", "budget", "groups", "gold", "choices", "replaced"),
  *("think", "reply", "raw", "think_tokens", "truncated", "extracted", "score"),
  *("official", "detail", "failed"),
)

Row = dict[str, Any]


def run(
  results: epath.PathLike,
  benchmark: str,
  out: epath.PathLike | None = None,
  *,
  limit: int = LIMIT,
  audio_mb: float = AUDIO_MB,
) -> epath.Path:
  """Writes the page of a benchmark and returns its path.

  Args:
    results: a folder that `evaluate` wrote.
    out: the page; None: results/NAME.html.
    limit: only the first so many questions, with every condition, sample and budget.
    audio_mb: sound that the page may hold, encoded; the rest is left out, and named.

  Raises:
    ValueError: results that are not there or not right, or a limit below 1.
  """
  if limit < 1:
    raise ValueError(f"limit={limit} must be at least 1")
  if audio_mb < 0:
    raise ValueError(f"audio_mb={audio_mb} must not be negative")
  found = results_lib.benchmark(results, benchmark)
  path = epath.Path(out) if out else epath.Path(results) / f"{benchmark}.html"
  held = sounds.Sounds(files.absolute(found.folder), round(audio_mb * 1e6))
  names = [*dict.fromkeys(row["id"] for row in found.items)]
  kept = {*names[:limit]}
  items = [row for row in found.items if row["id"] in kept]
  rows = [item(row, held) for row in progress.bar(items, "items", "item")]
  page = html(found, rows, held, left_out=len(names) - len(kept))
  with files.aside(path) as partial:
    partial.write_text(page, encoding="utf-8")
  return path


def item(row: Row, held: sounds.Sounds) -> Row:
  """What the page knows of an item; its clips go to `held`."""
  return {
    **{key: row[key] for key in _SHOWN},
    "key": key(row),
    "verdict": verdict(row),
    "turns": [_turn(message, held) for message in row["messages"]],
  }


def key(row: Row) -> str:
  """The item's link: its id, and what else tells it from others of that id."""
  rest = (row["condition"], row["sample"], row["budget"])
  if rest == (results_lib.HEARD, 0, None):
    return row["id"]
  return "~".join([row["id"], *("" if part is None else str(part) for part in rest)])


def verdict(row: Row) -> str:
  if row["failed"] is not None:
    return "failed"
  if row["score"] is None:
    return "unparsed"
  return {0: "wrong", 1: "right"}.get(row["score"], "part")


def _turn(message: Row, held: sounds.Sounds) -> Row:
  content = message["content"]
  if isinstance(content, str):
    content = [{"type": "text", "text": content}]
  blocks = [
    {"clip": held.add(block)} if block["type"] == "audio" else {"text": block["text"]}
    for block in content
  ]
  return {"role": message["role"], "think": message.get("think"), "blocks": blocks}


def html(
  found: results_lib.Results, rows: Sequence[Row], held: sounds.Sounds, left_out: int
) -> str:
  """The page of those rows."""
  script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
  return templates.render(
    HERE,
    "page.html",
    summary=found.summary,
    mean=found.summary["metrics"][found.metric],
    metric=found.metric,
    rows=templates.data(rows),
    clips=templates.data(held.clips),
    contents=held.contents,
    left_out=left_out,
    absent=held.absent(),
    script=markupsafe.Markup(script),
    script_hash=_hash(script),
  )


def _hash(script: str) -> str:
  """By which the page's policy knows its one script; no other may run."""
  digest = hashlib.sha256(script.encode()).digest()
  return f"sha256-{base64.b64encode(digest).decode()}"
