"""What is done of an experiment in stages, and what each stage cost."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stepaudio_jax import logs
from stepaudio_jax.core import files


class Stages:
  """DIR/stages.json; a stage that is done is not done again.

  Args:
    experiment: its module, for the command that is kept.
    settings: what the whole run depends on; a run with others is an error.
  """

  def __init__(
    self,
    workdir: Path,
    *,
    experiment: str = "quickstart",
    **settings: bool | int | str,
  ):
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / "stages.json"
    self._state = {
      "stages": [],
      "total_seconds": 0.0,
      **settings,
      "command": " ".join([f"python -m experiments.{experiment}", *sys.argv[1:]]),
    }
    if self._path.exists():
      self._state = json.loads(self._path.read_text())
    changed = [
      f"{key}={self._state[key]!r} (asked for: {value!r})"
      for key, value in settings.items()
      if self._state[key] != value
    ]
    if changed:
      raise SystemExit(
        f"{workdir} holds a run with {', '.join(changed)}; use another workdir, or the "
        "options it was started with"
      )

  def run(self, name: str, title: str, work: Callable[[], object]) -> None:
    """Does the work, unless it was done; a stage that was begun is resumed."""
    rows = self._state["stages"]
    row = next((row for row in rows if row["name"] == name), None)
    if row is None:
      row = {"name": name, "title": title, "seconds": 0.0, "done": False}
      row |= {"resumed": False, "note": ""}
      rows.append(row)
    elif row["done"]:
      logs.say(f"── {title}: done before")
      return
    else:
      row["resumed"], row["note"] = True, "killed and resumed; time since the resume"
    self._write()
    logs.say(f"── {title}")
    start = time.perf_counter()
    work()
    row["seconds"], row["done"] = time.perf_counter() - start, True
    self._state["total_seconds"] = sum(row["seconds"] for row in rows)
    self._write()

  def budget(self) -> str:
    lines = [
      f"{row['seconds']:7.1f} s  {row['title']}" for row in self._state["stages"]
    ]
    return "\n".join([*lines, f"{self._state['total_seconds']:7.1f} s  in all"])

  def _write(self) -> None:
    with files.aside(self._path) as partial:
      partial.write_text(json.dumps(self._state, indent=1))
