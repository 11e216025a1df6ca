r"""The SFT of an MGRD iteration: replies that the model gave itself and that were kept.

  python -m stepaudio_jax.train --config configs/mgrd.py --workdir runs/mgrd/1/sft \
    --config.init=runs/sft --config.data.options.kept.path=runs/mgrd/1/kept.jsonl

Step-Audio-R1 (§4.2): thoughts grounded in sound, beside text reasoning so that this is
not forgotten; RLVR follows (configs/rlvr.py:text=0.25). experiments/mgrd.sh runs whole
iterations, experiments/mgrd.py chooses what is kept. What is not named here is SFT's.
"""

from ml_collections import ConfigDict

from configs import sft
from stepaudio_jax.core import recipe


def get_config(arg: str = "") -> ConfigDict:
  c = sft.get_config(arg)
  arg = recipe.parse(arg, size="tiny", smoke=False)
  large = arg.size not in ("tiny", "small")
  c.stage = "mgrd"
  c.init = "runs/sft"
  c.total_steps = 6 if arg.smoke else 40
  c.data.mix = {"kept": 0.75, "written": 0.25}
  c.data.options = {
    "kept": {"set": "dialogue", "path": "runs/mgrd/1/kept.jsonl"},
    "written": {"set": "dialogue", "path": "runs/world/text-train.jsonl"},
  }
  c.optim.lr = 5e-6 if large else 5e-4  # on from a model that has learned
  c.optim.warmup_steps = 2 if arg.smoke else 10
  c.checkpoint.every_steps = 3 if arg.smoke else 40
  return c
