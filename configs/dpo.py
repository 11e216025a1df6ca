r"""DPO, a touch-up after SFT or RL: chosen replies become likelier than rejected ones.

  python -m stepaudio_jax.train --config configs/dpo.py --workdir runs/dpo \
    --config.init=runs/sft \
    --config.data.options.preference.path=runs/world/preferences-train.jsonl

−log σ(β[(log π_c − log π_c^ref) − (log π_r − log π_r^ref)]) on the file that trains the
reward model too (configs/reward_model.py); the mean of the raters' `overall` chooses.
R1 touches up what the model says of itself this way, such as "I cannot hear audio".
Log-probabilities are of whole turns, thoughts included. What a run of it came to:
experiments/README.md.
"""

from ml_collections import ConfigDict

from stepaudio_jax.core import recipe


def get_config(arg: str = "") -> ConfigDict:
  arg = recipe.parse(arg, size="tiny", smoke=False)
  large = arg.size not in ("tiny", "small")  # for pods
  c = ConfigDict()
  c.stage = "dpo"
  c.seed = 0
  c.size = arg.size
  c.tokenizer = "tiny"
  c.init = "runs/sft"
  c.reference = ""  # "": init
  c.fresh = ()
  c.objective = "dpo"
  c.trainable = ("adaptor", "decoder")
  c.total_steps = 8 if arg.smoke else 60
  c.batch_size = 4 if arg.smoke else 64 if large else 16  # comparisons
  c.microbatches = 1
  c.dtype = "bfloat16" if large else "float32"
  c.remat = "attention" if large else "none"
  c.head_chunks = 8 if large else 1
  c.attention = "auto"
  c.offload = ()  # to the host's memory

  c.loss = {
    "beta": 0.1,
    "length_normalised": False,  # means over tokens: then β is some 20 times larger
    "nll_weight": 0.0,  # α of + α·NLL(chosen) per token
  }

  c.data = ConfigDict()
  c.data.split = "train"
  c.data.mix = {"preference": 1.0}
  c.data.options = {"preference": {"path": "runs/world/preferences-train.jsonl"}}
  c.data.cache = ""  # "": workdir/cache
  c.data.max_tokens = 2048 if large else 104  # of the context
  c.data.max_reply_tokens = 2048 if large else 56
  c.data.max_raters = 12
  c.data.max_clips = 4 if large else 1
  c.data.max_clip_s = 25.0 if large else 3.2
  c.data.encode_batch = 16
  c.data.pack = large  # replies behind copies of their prompts, many to a row
  c.data.pack_rows = ()  # numbers of rows in a pack, so many programs; (): any

  c.optim = {
    "name": "adamw",
    "lr": 5e-7 if large else 1e-4,
    "schedule": "cosine",
    "warmup_steps": 6,
    "b1": 0.9,
    "b2": 0.98,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "clip_norm": 1.0,
  }
  data, fsdp = (1, -1) if large else (-1, 1)
  c.mesh = {"data": data, "fsdp": fsdp, "tensor": 1, "context": 1}
  c.checkpoint = {"every_steps": 4 if arg.smoke else 30, "keep": 2}
  c.log = {"every_steps": 1 if arg.smoke else 5}
  return c
