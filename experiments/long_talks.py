r"""Writes long dialogues of the synthetic world, for the benchmark `interaction`.

  python -m experiments.long_talks --out runs/talks --turns 8 --n 64
  python -m stepaudio_jax.evaluate --checkpoint runs/sft --benchmark interaction \
    --data runs/talks

DIR gets long-talks.jsonl (dialogues with a reply to every turn that a gold listener
finds without fault), long-talks-truth.jsonl (what only gold reads) and the speech, by
espeak-ng, in long-talks-speech/. 64 dialogues of 8 turns are 512 clips of 3 s. The same
arguments give the same bytes, and a killed run continues. No training reads them; see
stepaudio_jax/data/world/talks.py for what they hold.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from stepaudio_jax.core import errors
from stepaudio_jax.data.world import talks


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.long_talks",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--out", required=True, metavar="DIR", type=Path)
  add("--turns", type=int, default=8, metavar="T", help="of each dialogue, default 8")
  add("--n", type=int, default=64, metavar="N", help="dialogues, default 64; even")
  add("--seed", type=int, default=0, metavar="N", help="default 0")
  add("--processes", type=int, default=2, metavar="N", help="speech children, 2")
  given = parser.parse_args(argv)
  with errors.readable("long_talks"):
    files = talks.write(
      given.out,
      dialogues=given.n,
      turns=given.turns,
      seed=given.seed,
      processes=given.processes,
      progress=True,
    )
  for path in files:
    print(path)


if __name__ == "__main__":
  main()
