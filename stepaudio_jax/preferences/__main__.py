"""Files of preferences (schema pref/1): what is in them, and what may be wrong.

  python -m stepaudio_jax.preferences validate raw/*.jsonl
  python -m stepaudio_jax.preferences merge raw/*.jsonl --out all.jsonl
  python -m stepaudio_jax.preferences split all.jsonl --out-train train.jsonl \\
    --out-heldout heldout.jsonl
  python -m stepaudio_jax.preferences agreement all.jsonl
  python -m stepaudio_jax.preferences raters all.jsonl
  python -m stepaudio_jax.preferences convert --from pairwise dpo.jsonl --out mine.jsonl

`COMMAND --help` says more about each.
"""

import argparse
from collections.abc import Sequence

from stepaudio_jax.core import errors
from stepaudio_jax.preferences import (
  agreement,
  convert,
  merge,
  raters,
  split,
  validate,
)

COMMANDS = {
  "validate": validate,
  "merge": merge,
  "split": split,
  "agreement": agreement,
  "raters": raters,
  "convert": convert,
}


def parser() -> argparse.ArgumentParser:
  out = argparse.ArgumentParser(
    prog="python -m stepaudio_jax.preferences",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  commands = out.add_subparsers(dest="command", required=True)
  for name, module in COMMANDS.items():
    one = commands.add_parser(
      name,
      help=module.__doc__.partition("\n")[0],
      description=module.__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    module.flags(one)
  return out


def main(argv: Sequence[str] | None = None) -> None:
  given = vars(parser().parse_args(argv))
  command = COMMANDS[given.pop("command")]
  with errors.readable("preferences"):
    status = command.run(**given)
  if status:
    raise SystemExit(status)


if __name__ == "__main__":
  main()
