r"""Results of several checkpoints side by side, and beside the published table.

  python -m stepaudio_jax.report --results runs/a/evaluation/100 runs/b/evaluation/100 \
    --names SFT RLHF --out runs/report

A results folder is what evaluate writes. DIR gets report.json, report.md and
report.html, a page that needs nothing else.
"""

import argparse
from collections.abc import Sequence

from stepaudio_jax.core import errors
from stepaudio_jax.evals.parts import standings
from stepaudio_jax.report import command


def parser() -> argparse.ArgumentParser:
  out = argparse.ArgumentParser(
    prog="python -m stepaudio_jax.report",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = out.add_argument
  add("--results", required=True, nargs="+", metavar="DIR", help="one a checkpoint")
  add(
    "--names", nargs="+", metavar="NAME", help="of the checkpoints; else the folders'"
  )
  add("--out", required=True, metavar="DIR", help="of the report")
  add(
    "--published",
    default=standings.PUBLISHED,
    metavar="FILE",
    help='other rows to stand beside: {"source", "columns", "rows": {model: [average, '
    "…]}}; else those of the Step-Audio-R1.5 report",
  )
  return out


def main(argv: Sequence[str] | None = None) -> None:
  with errors.readable("report"):
    print(command.run(**vars(parser().parse_args(argv))))


if __name__ == "__main__":
  main()
