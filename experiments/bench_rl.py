r"""Our GRPO step beside other code bases', on the same decoder and the same tokens.

  python -m experiments.bench_rl --workdir runs/bench_rl

A decoder of 23.6 million parameters in float32 on the CPU; β = 0.04 with a reference
pass; end-of-text is ignored, so every reply has all its tokens. Job A: 8 prompts × 4
samples, 64 + 64 tokens; job B, the shape of audio prompts: 8 × 8, 320 + 64. Ours runs
twice: each reply behind its own copy of the prompt in training, and with shared
prefixes. Peers run one after another, each in an environment made under the workdir by
pip (some GB). A busy machine makes all of it wrong.

What was measured is kept in the workdir, part by part, and not measured again: `--only`
takes some parts now and others when it is quiet, without `--only` the rest follows. The
last line is one JSON object of all parts.

Generation is timed twice: within a step, behind an update, and alone (`A.generate`), as
transformers' `generate()` is: the median of seven after two that warm up.

A roofline is the arithmetic at the machine's best measured matmul rate, and the bytes
that decoding reads at its measured bandwidth.
"""

import argparse
import functools
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import bench_rl_ours as ours
from experiments import bench_rl_peers as peers

_LAYOUTS = {"ours": False, "ours_shared": True}
# Memory of a step stays with the process: large pages, none mapped anew for each array.
# Without it a third of an update went into pages that the kernel had to clear.
_MEMORY = {
  "hugetlb": 1,
  "mmap_max": 0,
  "trim_threshold": 1 << 35,
  "top_pad": 1 << 28,
  "arena_max": 1,
}
Part = Callable[[], dict[str, Any]]


def timed(job: ours.Job, shared: bool, steps: int) -> dict[str, Any]:
  """Median seconds of each phase and of the step, after one that compiles."""
  run = ours.Ours(job, shared)
  run.step(0)
  rows = [run.step(number) for number in range(1, steps + 1)]
  seconds = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
  seconds["prefill"] = run.prefill_s()
  seconds["decode"] -= seconds["prefill"]
  slots = ours.slots(run.laid(run.sample(run.key(0))))
  steps_s = [row["step"] for row in rows]
  return {"seconds": seconds, "steps_s": steps_s, "slots": slots}


def generated(repeats: int = 7) -> dict[str, Any]:
  """Seconds of job A's sampling alone, of each repeat after two that warm up."""
  run = ours.Ours(ours.JOBS["A"], True)
  return {"seconds": [run.sample_s(number) for number in range(2 + repeats)][2:]}


def machine() -> dict[str, Any]:
  """Best matmul rate and bandwidth."""
  return {"flops_per_s": ours.matmul_rate(), "bytes_per_s": ours.bandwidth()}


def parts(args: argparse.Namespace) -> dict[str, Part]:
  """Everything to be measured, by name, in the order of measuring."""
  steps, workdir = args.steps, args.workdir
  out: dict[str, Part] = {"machine": machine}
  for name in args.jobs:
    job = ours.JOBS[name]
    for layout, shared in _LAYOUTS.items():
      out[f"{name}.{layout}"] = functools.partial(timed, job, shared, steps)
    for peer, run in {"trl": peers.trl, "tunix": peers.tunix}.items():
      if peer in args.peers:
        out[f"{name}.{peer}"] = functools.partial(run, workdir, job, steps)
  if "A" in args.jobs:
    out["A.generate"] = generated
  if "generate" in args.peers:
    out["generate"] = functools.partial(peers.generate, workdir)
  return out


def measured(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
  """Every part that was asked for, or was measured before."""
  folder = args.workdir / "parts"
  folder.mkdir(parents=True, exist_ok=True)
  out = {}
  for name, part in parts(args).items():
    path = folder / f"{name}.json"
    if path.exists() and not args.again:
      out[name] = json.loads(path.read_text())
    elif not args.only or name in args.only:
      print(f"measuring {name}", flush=True)
      out[name] = part() | {"load": os.getloadavg()[0]}
      path.write_text(json.dumps(out[name]))
  return out


def told(name: str, found: dict[str, Any], rate: float, reading: float) -> float:
  """Prints one of our parts, phases with their share; returns its roofline."""
  job, layout = ours.JOBS[name.split(".")[0]], _LAYOUTS[name.split(".")[1]]
  flops, seconds = ours.flops(job, layout), found["seconds"]
  roofline = sum(flops.values()) / rate + ours.decode_bytes(job) / reading
  print(
    f"\n{name}: {seconds['step']:.2f} s a step, {job.drawn} tokens drawn, "
    f"{found['slots']} slots a pass, {seconds['step'] / roofline:.2f} of the "
    f"roofline's {roofline:.2f} s"
  )
  for phase in ours.PHASES:
    done = flops.get(phase, 0.0)
    share = f"{done / seconds[phase] / rate:6.0%} of the matmul rate" if done else ""
    print(f"  {phase:10} {seconds[phase]:7.3f} s {done / 1e9:8.1f} GFLOP {share}")
  return roofline


def summary(
  args: argparse.Namespace, found: dict[str, dict[str, Any]]
) -> dict[str, Any]:
  """The object that is printed last; what was not measured is null."""
  rates = found.get("machine", {"flops_per_s": 0.0, "bytes_per_s": 0.0})
  rate, reading = rates["flops_per_s"], rates["bytes_per_s"]
  print(f"best matmul rate {rate / 1e9:.0f} GFLOP/s, reads {reading / 1e9:.1f} GB/s")
  jobs: dict[str, Any] = {}
  for name in args.jobs:
    row: dict[str, Any] = {"tokens": ours.JOBS[name].drawn, "roofline_s": None}
    for layout in _LAYOUTS:
      part = found.get(f"{name}.{layout}")
      row[f"{layout}_s"] = part and part["seconds"]["step"]
      if part and "machine" in found:
        row["roofline_s"] = told(f"{name}.{layout}", part, rate, reading)
    for peer in ("trl", "tunix"):
      part = found.get(f"{name}.{peer}")
      row[f"{peer}_s"] = part and part["step_s"]
      if part and row["ours_shared_s"]:
        print(
          f"{name}: {peer} takes {part['step_s']:.2f} s and draws {part['tokens']} "
          f"tokens, ours takes {row['ours_shared_s'] / part['step_s']:.2f} of that"
        )
    jobs[name] = row
  sides = ("ours", "ours_in_a_step", "transformers")
  generate = {f"{side}_tokens_per_s": None for side in sides}
  if "A.generate" in found:
    alone = statistics.median(found["A.generate"]["seconds"])
    generate["ours_tokens_per_s"] = ours.JOBS["A"].drawn / alone
  if "A.ours_shared" in found:
    seconds = found["A.ours_shared"]["seconds"]
    drawing = seconds["prefill"] + seconds["decode"]
    generate["ours_in_a_step_tokens_per_s"] = ours.JOBS["A"].drawn / drawing
  if "generate" in found:
    generate["transformers_tokens_per_s"] = found["generate"]["tokens_per_s"]
  print(f"generation: {generate}")
  return {"jobs": jobs, "generate": generate, "parts": found}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.bench_rl",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--workdir", type=Path, default=Path("runs/bench_rl"))
  parser.add_argument("--jobs", nargs="+", choices=ours.JOBS, default=[*ours.JOBS])
  parser.add_argument(
    "--peers", nargs="+", choices=(*peers.PEERS, "none"), default=[*peers.PEERS]
  )
  parser.add_argument("--steps", type=int, default=5, help="timed, after warm-up")
  parser.add_argument("--only", nargs="+", metavar="PART", default=[])
  parser.add_argument("--again", action="store_true", help="what was measured, too")
  args = parser.parse_args(argv)
  if args.steps < 1:
    parser.error(f"--steps {args.steps}: at least 1")
  if "none" in args.peers and len(args.peers) > 1:
    parser.error(f"--peers {' '.join(args.peers)}: none goes alone")
  args.peers = [peer for peer in args.peers if peer != "none"]
  unknown = sorted({*args.only} - {*parts(args)})
  if unknown:
    parser.error(f"--only {' '.join(unknown)}: the parts are {' '.join(parts(args))}")
  return args


def main() -> None:
  args = arguments()
  if "GLIBC_TUNABLES" not in os.environ:
    # Read when a process starts; for all that is measured, ours and peers.
    command = [sys.executable, "-m", "experiments.bench_rl", *sys.argv[1:]]
    told = ":".join(f"glibc.malloc.{name}={value}" for name, value in _MEMORY.items())
    os.execve(sys.executable, command, os.environ | {"GLIBC_TUNABLES": told})
  print(json.dumps(summary(args, measured(args))))


if __name__ == "__main__":
  main()
