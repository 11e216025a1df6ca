"""Kills small runs in every phase; each goes on to what an undisturbed run ends with.

  python -m tests.kill --n 20 [--folder DIR] [--seed 0]

A supervised and an RLHF run of a few seconds are killed with SIGKILL while they sample,
update, write a checkpoint and rename it; then the same command runs to its end. Exit
status 1, with what differs and where, unless parameters, metrics (without `time/`),
samples and held-out rows are those of a run left alone, bit for bit.
"""

import argparse
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from stepaudio_jax import logs, workdirs
from stepaudio_jax.core import tree
from tests import child
from tests.flags import QUICK

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATIENCE_S = 300
_QUICK = {"XLA_FLAGS": QUICK, "JAX_PLATFORMS": "cpu"}
_PLACES = {"sample": 6, "update": 4, "write": 2, "rename": 2}  # how often each comes


class Wrong(Exception):
  """A run did not do what it should; where it lies is said."""


def start(stage: str, world: pathlib.Path, workdir: pathlib.Path, pause: str = ""):
  """The run in a process of its own, its output behind that of earlier starts."""
  with log_of(workdir).open("ab") as log:
    return subprocess.Popen(
      [sys.executable, "-m", "tests.child", stage, str(world), str(workdir)],
      cwd=ROOT,
      env=_QUICK | os.environ | {"PAUSE": pause},
      stdout=log,
      stderr=log,
      stdin=subprocess.DEVNULL,
    )


def log_of(workdir: pathlib.Path) -> pathlib.Path:
  return workdir.with_suffix(".log")


def finish(stage: str, world: pathlib.Path, workdir: pathlib.Path) -> None:
  if start(stage, world, workdir).wait(PATIENCE_S) != 0:
    raise Wrong(f"{workdir} did not end well: {log_of(workdir).read_text()[-2000:]}")


def signalled(
  stage: str,
  world: pathlib.Path,
  workdir: pathlib.Path,
  line: str,
  *,
  delay_s: float = 0.0,
  pause: bool = False,
  with_signal: int = signal.SIGKILL,
) -> subprocess.Popen:
  """Starts a run and signals it `delay_s` after it says `line`; with `pause` it waits.

  Raises:
    Wrong: it ended, or said nothing, before.
  """
  phases = workdir.with_suffix(".phases")
  phases.unlink(missing_ok=True)
  process = start(stage, world, workdir, line if pause else "")
  end = time.monotonic() + PATIENCE_S
  while not phases.exists() or f"{line}\n" not in phases.read_text():
    if process.poll() is not None or time.monotonic() > end:
      process.kill()
      raise Wrong(f"{workdir}: no {line!r}: {log_of(workdir).read_text()[-2000:]}")
    time.sleep(0.0005)
  time.sleep(delay_s)
  os.kill(process.pid, with_signal)
  return process


def kill(stage, world, workdir, line, **how) -> str:
  """Kills it there; returns "hit", or how it had gone on before the signal came."""
  code = signalled(stage, world, workdir, line, **how).wait(30)
  if code not in (0, -signal.SIGKILL):
    raise Wrong(f"{workdir} ended with {code}: {log_of(workdir).read_text()[-2000:]}")
  phase = line.split()[0]
  writing = list(workdir.glob("checkpoints/*-tmp"))
  if phase in ("write", "rename") and not writing:
    return "the checkpoint was whole before the signal came"
  return "hit" if code else "the run had ended before the signal came"


def differences(stage: str, ours: pathlib.Path, theirs: pathlib.Path) -> list[str]:
  """Where two workdirs of a stage differ, in words."""
  found = [
    f"{name}.jsonl"
    for name in child.JOURNALS[stage]
    if rows(ours, name) != rows(theirs, name) or not rows(ours, name)
  ]
  a, b = (tree.content_hash(workdirs.load_params(d)) for d in (ours, theirs))
  return found + (["parameters"] if a != b else [])


def rows(workdir: pathlib.Path, name: str) -> list[dict]:
  found = logs.read_metrics(workdir / f"{name}.jsonl")
  return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in found]


def plan(n: int, seed: int) -> list[tuple[str, str, dict]]:
  """(stage, line, how) of each kill: every phase of both runs in turn."""
  rng = random.Random(seed)
  turns = [("rlhf", "sample"), ("sft", "write"), ("rlhf", "rename"), ("sft", "update")]
  turns += [("rlhf", "write"), ("sft", "rename"), ("rlhf", "update")]
  out = []
  for i in range(n):
    stage, phase = turns[i % len(turns)]
    line = f"{phase} {rng.randint(1, _PLACES[phase])}"
    # What lasts but a moment is held there; the rest is killed wherever it has come to.
    held = phase in ("write", "rename")
    delay_s = rng.uniform(0, 0.05)
    out.append((stage, line, {"pause": held, "delay_s": delay_s}))
  return out


def kills(n: int, folder: pathlib.Path, seed: int = 0, say=print) -> dict[str, int]:
  """Kills n runs and lets each go on; returns how often each phase was hit.

  Raises:
    Wrong: a run that went on ended otherwise than one left alone.
  """
  world, whole, hits = child.make_world(folder), {}, dict.fromkeys(_PLACES, 0)
  for i, (stage, line, how) in enumerate(plan(n, seed)):
    if stage not in whole:
      whole[stage] = folder / f"whole-{stage}"
      finish(stage, world, whole[stage])
    workdir = folder / f"killed-{i}-{stage}"
    result = kill(stage, world, workdir, line, **how)
    finish(stage, world, workdir)
    found = differences(stage, workdir, whole[stage])
    if found:
      raise Wrong(
        f"{workdir}, killed at {line!r}, differs from {whole[stage]}: {found}"
      )
    hits[line.split()[0]] += result == "hit"
    say(f"{i + 1:3d} {stage:5s} {line:10s} {result}; it ended bit-identical")
  return hits


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--n", type=int, default=20, help="kills")
  parser.add_argument("--folder", type=pathlib.Path, help="a new folder; kept")
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  folder = args.folder or pathlib.Path(tempfile.mkdtemp(prefix="kill-"))
  folder.mkdir(parents=True, exist_ok=True)
  try:
    hits = kills(args.n, folder, args.seed, lambda text: print(text, flush=True))
  except Wrong as error:
    sys.exit(f"kill: {error}")
  print(f"{args.n} kills: {hits}")
  lacking = [phase for phase, count in hits.items() if count < min(3, args.n // 7)]
  if lacking:
    sys.exit(f"kill: {lacking} were hit too seldom")


if __name__ == "__main__":
  main()
