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

`train=heads` leaves the backbone as it is, `train=adapters` trains low-rank adapters of
its decoder beside the heads (rank, α and maps: `--config.adapters…`); they are part of
the plain weights wherever the checkpoint is read or exported, so nothing that uses it
knows of them. By default, `train=full`, adaptor and decoder are trained.

A comparison learns from what is there: labels of dimensions and marks may be missing,
and a dimension that nobody judged gets no gradient at all. The raters of a pair, one or
several and not the same for each, are a soft label. `raters=N` gives up to N raters
terms of their own, a lean to the second reply and a leniency in marks, which the heads
then need not explain (models/raters.py); N is at least as many as the file has. They
stay behind in the run (its raters.json has the names).

`stage=mixture` is a second stage: the heads of a reward model are frozen, and a gate
that reads the prompt learns from `overall` how much each dimension counts (ArmoRM).
Before its first step it finds, for each dimension, how much of the log of a reply's
tokens must be taken off to leave no rank correlation with it. The score is one more
dimension, "mixture", wherever the run is used:
  python -m stepaudio_jax.train --config configs/reward_model.py:stage=mixture \
    --config.init=runs/rm --workdir runs/rm-mixed

Several seeds make an ensemble; each is a run of its own:
  for seed in 0 1 2; do python -m stepaudio_jax.train --config configs/reward_model.py \
    --config.seed=$seed --workdir runs/rm-$seed; done
RLHF and `evaluate` take them as runs/rm-0,runs/rm-1,runs/rm-2.
"""

from ml_collections import ConfigDict

from stepaudio_jax.core import recipe

_TRAINED = {
  "full": ("adaptor", "decoder", "rewards"),
  "heads": ("rewards",),
  "adapters": ("rewards",),
}


def get_config(arg: str = "") -> ConfigDict:
  known = {"stage": "heads", "train": "full", "raters": 0, "smoke": False}
  arg = recipe.parse(arg, size="tiny", **known)
  large = arg.size not in ("tiny", "small")  # for pods: see experiments/fit
  c = ConfigDict()
  c.stage = "reward_model"
  c.seed = 0
  c.size = arg.size
  c.tokenizer = "tiny"
  c.init = "runs/sft"
  c.fresh = ("rewards",)
  c.objective = "preference"
  c.trainable = recipe.choose("train", arg.train, _TRAINED)
  c.adapters = {
    "rank": 8 if arg.train == "adapters" else 0,  # 0: none
    "alpha": 16.0,  # their change of a kernel weighs α/rank
    "maps": ("query", "key", "value", "out", "gate", "up", "down"),
  }
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
  # Squares of a rater's terms cost so much at every label; 0 and 0: no such terms.
  c.raters = {"room": arg.raters, "ridge": 0.05 if arg.raters else 0.0}

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
  recipe.choose("stage", arg.stage, dict.fromkeys(("heads", "mixture")))
  return _mixture(c, arg) if arg.stage == "mixture" else c


def _mixture(c: ConfigDict, arg: ConfigDict) -> ConfigDict:
  if arg.train != "full" or arg.raters:
    raise ValueError("stage=mixture trains a gate alone: neither train nor raters")
  c.objective, c.init = "mixture", "runs/rm"
  c.fresh, c.trainable = (), ()
  del c.loss["weights"], c["adapters"], c["raters"]
  c.mixture = {
    "width": 64,  # of the gate's hidden layer
    "temperature": 1.0,
    "reference": 2000,  # comparisons on whose replies the length is measured
    "most": 0.03,  # rank correlation with it that may be left
  }
  c.optim.name, c.optim.lr, c.optim.b1 = "adamw", 1e-3, 0.9
  return c
