"""A recipe's programs compiled ahead of time for a slice of TPUs: size, time.

  python -m stepaudio_jax.fit --config configs/sft.py:size=step_audio_r1 \\
    --topology v5p:4x4x4 --out experiments/fit

Needs libtpu (`pip install -e ".[tpu]"`), and no TPU. All times are predicted.
"""

import argparse
import sys
from collections.abc import Sequence

import jax

from stepaudio_jax import meshes
from stepaudio_jax.core import entry, errors
from stepaudio_jax.fit import command
from stepaudio_jax.fit.programs import PROGRAMS
from stepaudio_jax.pricing import topology


def parser() -> argparse.ArgumentParser:
  out = argparse.ArgumentParser(
    prog="python -m stepaudio_jax.fit",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = out.add_argument
  add("--config", required=True, metavar="FILE[:ARGS]", help="a recipe")
  add(
    "--topology",
    required=True,
    metavar="CHIP:SHAPE",
    help=f"such as {', '.join(topology.EXAMPLES)}",
  )
  add("--out", metavar="DIR", help="folder for the report, JSON and Markdown")
  add(
    "--program",
    action="append",
    default=[],
    metavar="NAME",
    help=f"one or more of {', '.join(map(repr, PROGRAMS))}; else all",
  )
  add(
    "--sampling-mesh",
    metavar="AXIS=N,…",
    help="of prefill and decode step; else tensor splits the heads, data the rest",
  )
  add(
    "--search",
    action="store_true",
    help="the supervised step over micro-batches × remat policies",
  )
  add("--config.KEY", metavar="VALUE", help="sets a value of the recipe")
  return out


def main(argv: Sequence[str] | None = None) -> None:
  argv = list(sys.argv[1:] if argv is None else argv)
  parsing = parser()
  overrides = entry.overrides(argv, parsing)
  args = parsing.parse_args(argv)
  if args.search and (args.program or args.sampling_mesh):
    parsing.error("--search tries the supervised step alone")
  # The programs are for a slice; this machine only traces them, whatever it has.
  jax.config.update("jax_platforms", "cpu")
  with errors.readable("fit"):
    config = entry.recipe_of(args.config)
    for key, text in overrides.items():
      entry.override(config, key, text)
    if args.search:
      command.search(config, args.out, topology_name=args.topology)
      return
    command.run(
      config,
      args.out,
      topology_name=args.topology,
      names=args.program,
      sampling_mesh=args.sampling_mesh and meshes.named_lengths(args.sampling_mesh),
    )


if __name__ == "__main__":
  main()
