r"""Pre-alignment of a size that starts from random weights (training.md, stage 0).

  python -m stepaudio_jax.train --config configs/prealign.py:phase=hear \
    --workdir runs/hear --config.data.options.speech.path=runs/world/clips-train.jsonl
  python -m stepaudio_jax.train --config configs/prealign.py:phase=speak \
    --workdir runs/speak --config.init=runs/hear \
    --config.data.options.dialogue.path=runs/world/captions-train.jsonl

phase=hear (0a): the encoder learns transcripts by CTC and attributes by heads on the
pooled clip and on every frame; all heads are thrown away. phase=speak (0b): the encoder
is frozen and its frames are cached; adaptor and decoder learn audio → text. Sizes with
published weights skip both. What the quick start's runs of it came to:
experiments/README.md.
"""

from ml_collections import ConfigDict

from stepaudio_jax.core import recipe


def get_config(arg: str = "") -> ConfigDict:
  arg = recipe.parse(arg, phase="hear", size="tiny", smoke=False)
  return recipe.choose("phase", arg.phase, {"hear": hear, "speak": speak})(arg)


def hear(arg: ConfigDict) -> ConfigDict:
  c = ConfigDict()
  c.stage = "prealign_hear"
  c.seed = 0
  c.size = arg.size
  c.tokenizer = "tiny"
  c.init = ""
  c.fresh = ("encoder", "hear")
  c.objective = "hear"
  c.trainable = ("encoder", "hear")
  c.total_steps = 12 if arg.smoke else 400
  c.batch_size = 8 if arg.smoke else 16
  c.microbatches = 1
  c.dtype = "float32"
  c.remat = "none"
  c.head_chunks = 1
  c.attention = "auto"
  c.offload = ()  # to the host's memory

  c.data = ConfigDict()
  c.data.split = "train"
  c.data.mix = {"speech": 1.0}
  c.data.options = {"speech": {"path": "runs/world/clips-train.jsonl"}}
  c.data.cache = ""  # "": workdir/cache
  c.data.max_clip_s = 3.2
  c.data.symbols = "pieces"
  c.data.max_symbols = 24
  c.data.attributes = {
    "pitch": ("low", "middle", "high"),
    "rate": ("slow", "normal", "fast"),
    "speakers": ("one", "two"),
    "emotion": ("calm", "excited", "sad", "angry"),
  }

  c.optim = {
    "name": "muon",
    "lr": 5e-3,
    "schedule": "cosine",
    "warmup_steps": 30,
    "b1": 0.95,
    "b2": 0.98,
    "eps": 1e-8,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
  }
  c.mesh = {"data": -1, "fsdp": 1, "tensor": 1, "context": 1}
  c.checkpoint = {"every_steps": 4 if arg.smoke else 150, "keep": 2}
  c.log = {"every_steps": 1 if arg.smoke else 5}
  return c


def speak(arg: ConfigDict) -> ConfigDict:
  c = ConfigDict()
  c.stage = "prealign_speak"
  c.seed = 0
  c.size = arg.size
  c.tokenizer = "tiny"
  c.init = "runs/hear"
  c.fresh = ("adaptor", "decoder")
  c.objective = "next_token"
  c.trainable = ("adaptor", "decoder")
  c.total_steps = 12 if arg.smoke else 140
  c.batch_size = 8
  c.microbatches = 1
  c.dtype = "float32"
  c.remat = "none"
  c.head_chunks = 1
  c.attention = "auto"
  c.offload = ()  # to the host's memory

  c.data = ConfigDict()
  c.data.split = "train"
  c.data.mix = {"dialogue": 1.0}
  c.data.options = {"dialogue": {"path": "runs/world/captions-train.jsonl"}}
  c.data.cache = ""
  c.data.max_tokens = 256
  c.data.max_clips = 3
  c.data.max_clip_s = 3.2
  c.data.encode_batch = 16
  c.data.history = "answer"
  c.data.pack = True

  c.optim = {
    "name": "muon",
    "lr": 5e-3,
    "schedule": "cosine",
    "warmup_steps": 30,
    "b1": 0.95,
    "b2": 0.98,
    "eps": 1e-8,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
  }
  c.mesh = {"data": -1, "fsdp": 1, "tensor": 1, "context": 1}
  c.checkpoint = {"every_steps": 4 if arg.smoke else 150, "keep": 2}
  c.log = {"every_steps": 1 if arg.smoke else 5}
  return c
