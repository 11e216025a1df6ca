r"""A page to browse the items behind a benchmark's numbers, with their sound.

  python -m stepaudio_jax.inspect --results runs/a/evaluation/100 --benchmark mmau

What was asked, thought and answered, what was read of the answer, and the scores. The
page needs nothing else; in it: → or j next, ← or k previous, / search, a play, Esc
back to the list.
"""

import argparse
from collections.abc import Sequence

from stepaudio_jax.core import errors
from stepaudio_jax.inspect import command


def parser() -> argparse.ArgumentParser:
  out = argparse.ArgumentParser(
    prog="python -m stepaudio_jax.inspect",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = out.add_argument
  add("--results", required=True, metavar="DIR", help="what evaluate wrote")
  add("--benchmark", required=True, metavar="NAME", help="one of its benchmarks")
  add("--out", metavar="FILE", help="the page; else DIR/NAME.html")
  add(
    "--limit",
    type=int,
    default=command.LIMIT,
    metavar="N",
    help="only the first N questions, with all their replies; else %(default)s",
  )
  add(
    "--audio-mb",
    type=float,
    default=command.AUDIO_MB,
    metavar="MB",
    help="sound that the page may hold; else %(default)s",
  )
  return out


def main(argv: Sequence[str] | None = None) -> None:
  with errors.readable("inspect"):
    print(command.run(**vars(parser().parse_args(argv))))


if __name__ == "__main__":
  main()
