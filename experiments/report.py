"""DIR/report.html: what a quick start did, on one page that needs nothing else.

  python -m experiments.report --workdir DIR

Reads only files that the stages left in DIR, so the page can be made again in seconds.
No scripts, no requests, no fonts to fetch: it opens from a mail attachment.
"""

import argparse
import json
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

import jinja2
from etils import epath

from experiments import (
  report_arms,
  report_charts,
  report_dialogues,
  report_files,
  report_verdict,
)
from experiments import report_policies as policies
from experiments import report_words as words
from stepaudio_jax.core import files
from stepaudio_jax.pages import templates

HERE = pathlib.Path(__file__).parent
TEMPLATE = "report_template.html"

# Stages on a fixed data set: folder → (title, what it teaches).
TRAINED = {
  "hear": (
    "Learning to hear",
    "The encoder writes transcripts (CTC) and names pitch, pace, speakers and mood.",
  ),
  "speak": (
    "Learning to speak",
    "The encoder is frozen; adaptor and decoder learn to say what it hears.",
  ),
  "sft": (
    "Learning to converse",
    "Supervised fine-tuning on dialogues: think, then reply. The start of all arms.",
  ),
  "rm": (
    "Learning what listeners prefer",
    "The reward model: a score for every dimension, from simulated raters' choices.",
  ),
}


def write(workdir: epath.PathLike) -> epath.Path:
  """Makes `workdir`/report.html and returns its path.

  Raises:
    ValueError: a file is missing, incomplete or malformed; it is named.
  """
  folder = epath.Path(workdir)
  page = _template().render(**contents(folder)).strip() + "\n"
  path = folder / "report.html"
  with files.aside(path) as partial:
    partial.write_text(page, encoding="utf-8")
  return path


def contents(folder: epath.Path) -> dict[str, Any]:
  """Everything the page shows."""
  evaluation = folder / "evaluation"
  run = report_files.stages(folder)
  worlds = policies.worlds(evaluation)
  paths = {p: evaluation / p / "world.items.jsonl" for p in policies.POLICIES}
  heard = policies.heard({p: report_files.items(path) for p, path in paths.items()})
  arms = report_arms.arms(folder)
  compared = policies.differences(heard)
  dialogues = _dialogues(folder, heard)
  return {
    "run": run,
    "policies": policies.POLICIES,
    "arm_titles": policies.ARMS,
    "colours": policies.COLOURS,
    "worlds": worlds,
    "verdict": report_verdict.verdict(compared, worlds[policies.START]["tasks"]),
    "board": policies.scoreboard(heard, {k: arm["exam"] for k, arm in arms.items()}),
    "differences": compared,
    "arms": arms,
    "dynamics": report_arms.dynamics(folder),
    "reward_model": report_files.reward_model(evaluation / "rm" / "reward_model.json"),
    "dialogues": dialogues,
    "rule": report_dialogues.RULE,
    "curves": _curves(folder),
    "box": f"0 0 {report_charts.WIDTH} {report_charts.HEIGHT}",
    "smoothed_rows": report_charts.SMOOTHED_ROWS,
    "smoothed_steps": report_arms.SMOOTHED_STEPS,
    "manifest": report_files.manifest(folder / "rlhf"),
    "configs": {name: report_files.config(folder / name) for name in _configured()},
    "exports": {
      p: report_files.exports(folder / "export" / p) for p in policies.POLICIES
    },
    "example_clip": _under(folder, report_dialogues.clips(dialogues[0])[0]["path"]),
    "folder": str(folder),
    "task_hints": policies.TASKS,
    "dimension_hints": policies.DIMENSIONS,
  }


def _configured() -> list[str]:
  return [*TRAINED, *policies.ARMS]


def _dialogues(
  folder: epath.Path, heard: dict[str, policies.Items]
) -> list[dict[str, Any]]:
  folders = [folder, *(path for path in folder.iterdir() if path.is_dir())]
  chosen = report_dialogues.picked(heard, str(folder / "evaluation"))
  return [report_dialogues.shown(rows, folders) for rows in chosen]


def _under(folder: epath.Path, path: str | None) -> str:
  """A clip's path for the commands, short where it lies in the workdir."""
  if path is None:  # its bytes lie in the row
    return "clip.wav"
  full, root = epath.Path(path).resolve(), folder.resolve()
  return str(folder / full.relative_to(root)) if root in full.parents else path


def _curves(folder: epath.Path) -> list[dict[str, Any]]:
  out = []
  for name, (title, about) in TRAINED.items():
    panels = report_charts.panels(report_files.metrics(folder / name))
    out.append({"name": name, "title": title, "about": about, "panels": panels})
  return out


def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader([HERE, templates.HERE]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  formats = (words.percent, words.number, words.signed, words.points, words.span)
  formats += (words.point_span, words.duration, words.size, words.listed, words.counts)
  environment.filters |= {one.__name__: one for one in formats}
  environment.filters |= {
    "sign": policies.sign,
    "plain": lambda name: name.replace("_", " "),
    "shell": shlex.quote,
    "literal": json.dumps,  # of a string: as Python writes it
  }
  return environment.get_template(TEMPLATE)


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.report",
    description=__doc__.split("\n", 1)[0],
    allow_abbrev=False,
  )
  parser.add_argument("--workdir", required=True, help="Folder of a quick start.")
  print(write(parser.parse_args(argv).workdir))


if __name__ == "__main__":
  main()
