"""ablation.json, ablation.md, ablation.html and a picture of each question."""

import base64
import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import markupsafe
from etils import epath

from stepaudio_jax.ablate import figures, tables
from stepaudio_jax.core import files
from stepaudio_jax.evals.parts import tables as markdown
from stepaudio_jax.pages import templates

HERE = pathlib.Path(__file__).parent
FIGURES = "figures"

Row = dict[str, Any]


def write(workdir: epath.Path, found: Row) -> None:
  """All files; ablation.json comes last."""
  pictures = {}
  for name, question in found["questions"].items():
    picture = io.BytesIO()
    markdown.png(lambda n=name, q=question: figures.figure(n, q), picture)
    pictures[name] = picture.getvalue()
    with files.aside(workdir / FIGURES / f"{name}.png") as partial:
      partial.write_bytes(pictures[name])
  parts = tables.sections(found)
  for ending, text in {
    "md": in_markdown(parts),
    "html": html(parts, pictures),
    "json": json.dumps(found, indent=1, allow_nan=False) + "\n",
  }.items():
    with files.aside(workdir / f"ablation.{ending}") as partial:
      partial.write_text(text, encoding="utf-8")


def in_markdown(parts: list[Row]) -> str:
  """The sections with their tables and links to the pictures."""
  out = []
  for part in parts:
    out += [f"{'#' * part['level']} {part['title']}", *part["text"]]
    out += [markdown.table(one["head"], _cells(one["rows"])) for one in part["tables"]]
    if part["figure"]:
      out.append(f"![{part['figure']}]({FIGURES}/{part['figure']}.png)")
  return "\n\n".join(out) + "\n"


def _cells(rows: list[list[str]]) -> list[list[str]]:
  return [[markdown.cell(text) for text in row] for row in rows]


def html(parts: list[Row], pictures: Mapping[str, bytes]) -> str:
  """One file that needs nothing else."""
  inside = {
    name: markupsafe.Markup(f"data:image/png;base64,{base64.b64encode(data).decode()}")
    for name, data in pictures.items()
  }
  return templates.render(HERE, "page.html", parts=parts, pictures=inside)
