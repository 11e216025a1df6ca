r"""Ablation of reward dimensions on the tiny RLHF recipe: which of them does what.

  python -m stepaudio_jax.ablate --config configs/ablate.py --workdir runs/ablate \
    --config.init=runs/quickstart/sft --config.reward_model=runs/quickstart/rm \
    --config.prompts=runs/quickstart/world/prompts-{split}.jsonl \
    --config.cache=runs/quickstart/cache --config.world.data=runs/quickstart/world

Five arms (the whole reward of four dimensions, and it without each) × three seeds: 15
runs of `base` (the quick start's own takes one minute on two cores, and the gold
listener's questions 20 s), then offline questions about the replies that the controls
kept. `smoke` makes two arms × two seeds of two steps each.

A question is `without_D`, `only_D`, `D_xF` (a weight times F) or `normalisation_H`; the
control `all` is always there. `questions` are trained, `offline.questions` asked of
saved replies: those of `offline.runs` (folders of train_rl), or else the controls'.
`only=offline` trains nothing and wants `--config.offline.runs=DIR,DIR`; `only=train`
asks nothing offline. More questions or seeds may be added to a folder later.

`overrides` are keys of `base`: `--config.overrides=kl.beta=0.01,optim.lr=1e-4`
(`base`'s dimensions that `weights` lacks are logged with weight 0). `parallel=0` runs
one process for every two cores, or one on an accelerator; `--config.devices=0,1,2,3`
one on each of these, named to it by `device_variable`.
"""

from ml_collections import ConfigDict

from stepaudio_jax.core import recipe

_PARTS = ("", "offline", "train")
_WEIGHTS = {
  "correctness": 2.0,
  "naturalness": 1.0,
  "emotional_continuity": 1.0,
  "instruction": 1.0,
}


def get_config(arg: str = "") -> ConfigDict:
  arg = recipe.parse(arg, normalisation="sum", only="", smoke=False)
  recipe.choose("only", arg.only, dict.fromkeys(_PARTS))
  c = ConfigDict()
  c.stage = "ablate"
  smoke = ",smoke" if arg.smoke else ""
  c.base = f"configs/rlhf.py:algorithm=grpo,normalisation={arg.normalisation}{smoke}"
  c.init = "runs/sft"
  c.reward_model = "runs/rm"
  c.prompts = "runs/world/prompts-{split}.jsonl"  # "": base's own data
  c.cache = ""  # of encoder frames, shared by all runs; "": workdir/cache
  c.total_steps = 0  # 0: base's own
  # In float32 on one machine sampler and trainer agree: nothing to correct.
  c.overrides = ("correction.kind=none",)

  c.weights = dict(_WEIGHTS)
  names = [*_WEIGHTS][:1] if arg.smoke else [*_WEIGHTS]
  left_out = [f"without_{name}" for name in names]
  c.questions = () if arg.only == "offline" else tuple(left_out)
  c.seeds = (0, 1) if arg.smoke else (0, 1, 2)
  c.parallel = 0  # 0: a process for every two cores, or one on an accelerator
  c.devices = ()  # a run on each at a time
  c.device_variable = "CUDA_VISIBLE_DEVICES"  # or "TPU_VISIBLE_CHIPS"

  c.world = {  # asked of each run's end; "": no gold
    "data": "runs/world",
    "limit": 8 if arg.smoke else 0,  # 0: all dialogues
    "batch_size": 8 if arg.smoke else 128,
    "max_new_tokens": 48,
  }
  asked = [
    *left_out,
    *(f"only_{name}" for name in names),
    *(f"{name}_x{factor}" for name in names for factor in ("0.5", "2")),
    "normalisation_gdpo" if arg.normalisation == "sum" else "normalisation_sum",
  ]
  c.offline = {
    "runs": (),  # (): the controls' own
    "questions": () if arg.only == "train" else tuple(asked),
    "gradient_steps": 1 if arg.smoke else 2,  # first steps whose gradients are taken
    "blocks": 32,  # of prompts, between which gradients are resampled
    "draws": 2000,
  }
  return c
