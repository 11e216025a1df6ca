r"""Our GRPO step beside other code bases', on the same decoder and the same tokens.

  python -m experiments.bench_rl --workdir runs/bench_rl

A decoder of 23.6 million parameters in float32 on the CPU; β = 0.04 with a reference
pass; end-of-text is ignored, so every reply has all its tokens. Job A: 8 prompts × 4
samples, 64 + 64 tokens; job B, the shape of audio prompts: 8 × 8, 320 + 64. Ours runs
twice: each reply behind its own copy of the prompt in training, and with shared
prefixes. Peers run one after another, each in an environment made under the workdir by
pip (some GB). The last line is one JSON object; a busy machine makes all of it wrong.

A roofline is the arithmetic at the machine's best measured matmul rate, and the bytes
that decoding reads at its measured bandwidth.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from experiments import bench_rl_ours as ours
from experiments import bench_rl_peers as peers

_LAYOUTS = {"ours": False, "ours_shared": True}


def timed(job: ours.Job, shared: bool, steps: int) -> dict[str, Any]:
  """Median seconds of each phase and of the step, after one that compiles."""
  run = ours.Ours(job, shared)
  run.step(0)
  rows = [run.step(number) for number in range(1, steps + 1)]
  seconds = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
  seconds["prefill"] = run.prefill_s()
  seconds["decode"] -= seconds["prefill"]
  return {"seconds": seconds, "slots": ours.slots(run.laid(run.sample(run.key(0))))}


def row(
  name: str, job: ours.Job, shared: bool, steps: int, rate: float, reading: float
) -> dict[str, Any]:
  """One of our rows, printed: phases and their share of the matmul rate."""
  found, flops = timed(job, shared, steps), ours.flops(job, shared)
  found["gflop"] = {phase: count / 1e9 for phase, count in flops.items()}
  found["roofline_s"] = sum(flops.values()) / rate + ours.decode_bytes(job) / reading
  print(
    f"\n{name}: {found['seconds']['step']:.2f} s a step, {job.drawn} tokens drawn, "
    f"{found['slots']} slots a pass, roofline {found['roofline_s']:.2f} s"
  )
  for phase in ours.PHASES:
    second = found["seconds"][phase]
    done = flops.get(phase, 0.0)
    share = f"{done / second / rate:6.0%} of the matmul rate" if done else ""
    print(f"  {phase:10} {second:7.3f} s {done / 1e9:8.1f} GFLOP {share}", flush=True)
  return found


def jobs(args: argparse.Namespace, rate: float, reading: float) -> dict[str, Any]:
  """Every job by ours and by the peers that were asked for."""
  out = {}
  for name in args.jobs:
    job = ours.JOBS[name]
    found = {"tokens": job.drawn}
    for layout, shared in _LAYOUTS.items():
      one = row(f"job {name}, {layout}", job, shared, args.steps, rate, reading)
      found |= {f"{layout}_s": one["seconds"]["step"], layout: one}
    found["roofline_s"] = found["ours_shared"]["roofline_s"]
    for peer, run in {"trl": peers.trl, "tunix": peers.tunix}.items():
      found[f"{peer}_s"] = None
      if peer in args.peers:
        its = run(args.workdir, job, args.steps)
        found |= {f"{peer}_s": its["step_s"], peer: its}
        ratio = found["ours_shared_s"] / its["step_s"]
        print(
          f"job {name}, {peer}: {its['step_s']:.2f} s a step, {its['tokens']} "
          f"tokens; ours with shared prefixes takes {ratio:.2f} of it",
          flush=True,
        )
    out[name] = found
  return out


def run(args: argparse.Namespace) -> dict[str, Any]:
  """Everything that was asked for, as the object that is printed last."""
  args.workdir.mkdir(parents=True, exist_ok=True)
  rates = {"xla": ours.matmul_rate()}
  if args.peers:
    rates["torch"] = peers.matmul_rate(args.workdir)
  rate, reading = max(rates.values()), ours.bandwidth()
  told = ", ".join(f"{name} {each / 1e9:.0f}" for name, each in rates.items())
  print(f"matmul GFLOP/s: {told}; reads {reading / 1e9:.1f} GB/s", flush=True)
  found = jobs(args, rate, reading)
  generate = {"ours_tokens_per_s": None, "transformers_tokens_per_s": None}
  if "A" in found:
    seconds = found["A"]["ours_shared"]["seconds"]
    drawing = seconds["prefill"] + seconds["decode"]
    generate["ours_tokens_per_s"] = found["A"]["tokens"] / drawing
  if "generate" in args.peers:
    its = peers.generate(args.workdir)
    generate |= {"transformers_tokens_per_s": its["tokens_per_s"], "all": its["all"]}
    print(f"transformers generates {its['tokens_per_s']:.0f} tokens/s", flush=True)
  machine = {"matmul_flops": rates, "bytes_per_s": reading, "steps": args.steps}
  return {"jobs": found, "generate": generate, "machine": machine}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", type=Path, default=Path("runs/bench_rl"))
  parser.add_argument("--jobs", nargs="+", choices=ours.JOBS, default=[*ours.JOBS])
  parser.add_argument(
    "--peers", nargs="+", choices=(*peers.PEERS, "none"), default=[*peers.PEERS]
  )
  parser.add_argument("--steps", type=int, default=5, help="timed, after warm-up")
  args = parser.parse_args(argv)
  if args.steps < 1:
    parser.error(f"--steps {args.steps}: at least 1")
  if "none" in args.peers and len(args.peers) > 1:
    parser.error(f"--peers {' '.join(args.peers)}: none goes alone")
  args.peers = [peer for peer in args.peers if peer != "none"]
  return args


def main() -> None:
  print(json.dumps(run(arguments())))


if __name__ == "__main__":
  main()
