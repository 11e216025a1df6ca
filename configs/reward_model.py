r"""A reward model of many dimensions, from pairs of replies and what raters chose.

  python -m stepaudio_jax.train --config configs/reward_model.py --workdir runs/rm \
    --config.init=runs/sft \
    --config.data.options.preference.path=runs/world/preferences-train.jsonl

The SFT model with a head for each dimension, read at the end of the answer alone, or
of the turn with its thought for `dims_on_thought` (training.md §2.2).
  python -m stepaudio_jax.evaluate --checkpoint runs/rm --benchmark reward_model \
    --data runs/world
compares it with baselines and with the ceiling. Numbers to expect:
experiments/README.md.
"""

from ml_collections import ConfigDict

from stepaudio_jax.core import recipe


def get_config(arg: str = "") -> ConfigDict:
  arg = recipe.parse(arg, size="tiny", smoke=False)
  large = arg.size not in ("tiny", "small")  # for pods: see experiments/fit
  c = ConfigDict()
  c.stage = "reward_model"
  c.seed = 0
  c.size = arg.size
  c.tokenizer = "tiny"
  c.init = "runs/sft"
  c.fresh = ("rewards",)
  c.objective = "preference"
  c.trainable = ("adaptor", "decoder", "rewards")
  c.total_steps = 8 if arg.smoke else 100
  c.batch_size = (
    4 if arg.smoke else 64 if large else 16
  )  # comparisons, all raters of each
  c.microbatches = 1
  c.dtype = "bfloat16" if large else "float32"
  c.remat = "attention" if large else "none"
  c.head_chunks = 8 if large else 1
  c.attention = "auto"
  c.offload = ()  # to the host's memory

  c.dimensions = (
    "overall",
    "correctness",
    "acoustic_grounding",
    "instruction",
    "naturalness",
    "emotional_continuity",
    "coherence",
  )
  c.dims_on_thought = ("acoustic_grounding",)
  c.loss = {
    "weights": {"bradley_terry": 1.0, "regression": 0.5, "centring": 0.01},
    "margin": 0.0,  # reward points a level; not with `scaled`
    "scaled": False,
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

  c.optim = {
    "name": "adamw" if large else "muon",
    "lr": 1e-5 if large else 2e-3,
    "schedule": "cosine",
    "warmup_steps": 10,
    "b1": 0.9 if large else 0.95,
    "b2": 0.98,
    "eps": 1e-8,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
  }
  data, fsdp = (1, -1) if large else (-1, 1)
  c.mesh = {"data": data, "fsdp": fsdp, "tensor": 1, "context": 1}
  c.checkpoint = {"every_steps": 4 if arg.smoke else 100, "keep": 2}
  c.log = {"every_steps": 1 if arg.smoke else 5}
  return c
