"""Our 32B training step beside a compact pure-JAX one, under the same prices.

  python -m experiments.fit_peer --topology v5p:4x4x4 --out experiments/fit

The other is a yardstick that may lie beside the checkout (../shared/peers): a decoder
of Qwen2.5-32B's shape with hand-placed shardings. Both are compiled for the same slice
with the recipe's 256 rows of 4,096 tokens, and priced alike. Nothing is run; minutes.
"""

import argparse
import importlib
import json
import pathlib
import sys
from typing import Any

import jax
from etils import epath

from stepaudio_jax import sharding
from stepaudio_jax.core import entry, errors
from stepaudio_jax.fit import command, programs, rows
from stepaudio_jax.pricing import hlo, topology, totals

PEERS = pathlib.Path(__file__).resolve().parents[2] / "shared" / "peers"
RECIPE = "configs/sft.py:size=step_audio_r1"
_FLAGS = {"v5p": "sc", "v5e": "v5e", "v6e": "v6e"}  # the yardstick's names


def compared(topology_name: str) -> dict[str, Any]:
  """Predicted MFU of both, and ours over theirs.

  Raises:
    FileNotFoundError: the yardstick is not beside the checkout.
  """
  where = topology.topology(topology_name)
  job = command.job_of(entry.recipe_of(RECIPE), where)
  ours = rows.row(programs.supervised_step(job), where, job.size.name)
  theirs = peer(where, sharding.rows(job.c.batch_size, 1, job.mesh))
  return {
    "topology": topology_name,
    "ours": {key: ours[key] for key in (*theirs, "hbm_peak_bytes", "compile_s")},
    "peer": theirs,
    "ours_over_peer": ours["mfu_expected"] / theirs["mfu_expected"],
    "versions": rows.versions(),
  }


def peer(where: topology.Topology, rows_a_chip: int) -> dict[str, Any]:
  """The yardstick's step under our prices, with its own flags for the chip."""
  if not (PEERS / "tpu_qwen32b.py").exists():
    raise FileNotFoundError(f"the yardstick is not at {PEERS}")
  sys.path.insert(0, str(PEERS))
  try:
    module = importlib.import_module("tpu_qwen32b")
  finally:
    sys.path.remove(str(PEERS))
  named = {"topo": where.name, "flags": _FLAGS[where.links.chip.name]}
  case = module.replace(module.CASES["qwen32b"], batch=rows_a_chip, **named)
  _, text, _, _ = module.build(case)
  found = totals.totals(hlo.parse(text), where.links)
  flops = module.analytic(case)["model_flops"]
  return {
    "mfu_expected": flops / found.expected / where.links.chip.peak,
    "seconds_floor": found.floor,
    "seconds_expected": found.expected,
    "seconds_pessimistic": found.pessimistic,
    "unpriced_share": found.unpriced_share,
    "seconds_by_kind": found.by_kind,
    "model_flops_per_chip": flops,
  }


def file_name(topology_name: str) -> str:
  return f"peer-{topology_name.replace(':', '-')}.json"


def main() -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.fit_peer",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("--topology", default="v5p:4x4x4", metavar="CHIP:SHAPE")
  parser.add_argument("--out", metavar="DIR", help="folder for peer-….json")
  args = parser.parse_args()
  jax.config.update("jax_platforms", "cpu")
  with errors.readable("fit_peer"):
    text = json.dumps(compared(args.topology), indent=1)
  print(text)
  if args.out:
    folder = epath.Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file_name(args.topology)).write_text(text + "\n")


if __name__ == "__main__":
  main()
