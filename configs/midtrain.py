r"""Audio-centric mid-training: dialogues about sound mixed with text-only reasoning.

  python -m stepaudio_jax.train --config configs/midtrain.py --workdir runs/midtrain \
    --config.init=runs/speak \
    --config.data.options.spoken.path=runs/world/dialogues-train.jsonl \
    --config.data.options.written.path=runs/world/text-train.jsonl

E_audio[log π(r,y|x,q)] + E_text[log π(r,y|q)] (R1.5 §3.1): streams are mixed per
example by weight, the loss is the token mean of the batch, and each stream's own loss
is logged as train/loss_<name>. No run of it is recorded yet.
"""

from ml_collections import ConfigDict

from stepaudio_jax.core import recipe


def get_config(arg: str = "") -> ConfigDict:
  arg = recipe.parse(arg, size="tiny", smoke=False)
  large = arg.size not in ("tiny", "small")  # for pods: see experiments/fit
  c = ConfigDict()
  c.stage = "midtrain"
  c.seed = 0
  c.size = arg.size
  c.tokenizer = "tiny"
  c.init = "runs/speak"
  c.fresh = ()
  c.objective = "next_token"
  c.trainable = ("adaptor", "decoder")
  c.total_steps = 12 if arg.smoke else 400
  c.batch_size = 8 if arg.smoke else 256 if large else 12
  # For 16 chips of v6e; the 32B model is for 64 chips of v5p or more.
  c.microbatches = 8 if arg.size == "step_audio_2_mini" and not arg.smoke else 1
  c.dtype = "bfloat16" if large else "float32"
  c.remat = "attention" if large else "none"
  c.head_chunks = 8 if large else 1
  c.attention = "auto"
  c.offload = ()  # to the host's memory

  c.data = ConfigDict()
  c.data.split = "train"
  c.data.mix = {"spoken": 0.6, "written": 0.4}
  c.data.options = {
    "spoken": {"set": "dialogue", "path": "runs/world/dialogues-train.jsonl"},
    "written": {"set": "dialogue", "path": "runs/world/text-train.jsonl"},
  }
  c.data.cache = ""  # "": workdir/cache
  c.data.max_tokens = 4096 if large else 256
  c.data.max_clips = 4 if large else 3
  c.data.max_clip_s = 25.0 if large else 3.2
  c.data.encode_batch = 16
  c.data.history = "answer"
  c.data.pack = True

  c.optim = {
    "name": "adamw",
    "lr": 1e-5 if large else 2e-3,
    "schedule": "cosine",
    "warmup_steps": 30,
    "b1": 0.9,
    "b2": 0.98,
    "eps": 1e-8,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
  }
  data, fsdp = (1, -1) if large else (-1, 1)
  c.mesh = {"data": data, "fsdp": fsdp, "tensor": 1, "context": 1}
  c.checkpoint = {"every_steps": 4 if arg.smoke else 150, "keep": 2}
  c.log = {"every_steps": 1 if arg.smoke else 5}
  return c
