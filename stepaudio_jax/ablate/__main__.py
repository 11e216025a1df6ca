"""Which dimension of a reward does what: leave one out, keep one only, weigh anew.

  python -m stepaudio_jax.ablate --config configs/ablate.py --workdir runs/ablate

Training runs in pairs: for each question and seed one run beside a control of the same
seed, start and prompts, in processes of their own. Offline, from the replies that a run
kept: how their ranking and the policy's gradient change. DIR gets ablation.json,
ablation.md, ablation.html and figures. Killed anywhere, the same command goes on.
"""

import sys

from stepaudio_jax.ablate import command
from stepaudio_jax.core import entry


def main() -> None:
  try:
    entry.run_recipe("ablate", __doc__, command.run)
  except command.Failed as error:
    print(f"ablate: {error}", file=sys.stderr)
    raise SystemExit(1) from error


if __name__ == "__main__":
  main()
