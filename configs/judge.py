r"""A judge that compares two replies, reasons, and names one of six levels.

  python -m stepaudio_jax.train --config configs/judge.py --workdir runs/judge \
    --config.init=runs/sft \
    --config.data.options.judgement.path=runs/world/preferences-{split}.jsonl
  python -m stepaudio_jax.train_rl --config configs/judge.py:phase=rl \
    --workdir runs/judge_rl --config.init=runs/judge

R1.5 §3.3 (eq. 2, 3). The first is SFT on the file that trains the reward model too:
each rater's row in both orders, the labels of single dimensions as reasons, then the
level of `overall` (data/sets/judgement.py; its option `dimension` has a judge of one
dimension). The second is a policy gradient on −|level error| (rewards/level_error.py),
in RLVR's loop with the algorithm that `algorithm=` names. What comes out is a
checkpoint like any other: `--config.judge=runs/judge` of RLHF, `--judge runs/judge` of
evaluations. What is not named here is SFT's or RLVR's own value.
"""

from ml_collections import ConfigDict

from configs import rlvr, sft
from stepaudio_jax.core import recipe

_PATH = "runs/world/preferences-{split}.jsonl"


def get_config(arg: str = "") -> ConfigDict:
  known = {"size": "tiny", "phase": "levels", "algorithm": "grpo", "smoke": False}
  arg = recipe.parse(arg, **known)
  phases = {"levels": _levels, "rl": _rl}
  c = recipe.choose("phase", arg.phase, phases)(arg)
  c.data.mix = {"judgement": 1.0}
  c.data.options = {"judgement": {"path": _PATH}}
  if arg.size == "tiny":
    # A quoted conversation with one clip, two replies, and the question.
    c.data.max_tokens = 416
    c.data.max_clips = 3
  return c


def _levels(arg: ConfigDict) -> ConfigDict:
  smoke = ",smoke" if arg.smoke else ""
  if arg.algorithm != "grpo":
    raise ValueError(f"algorithm={arg.algorithm!r} is of phase=rl alone")
  c = sft.get_config(f"size={arg.size}{smoke}")
  c.stage = "judge"
  c.init = "runs/sft"
  return c


def _rl(arg: ConfigDict) -> ConfigDict:
  smoke = ",smoke" if arg.smoke else ""
  c = rlvr.get_config(f"size={arg.size},algorithm={arg.algorithm}{smoke}")
  c.stage = "judge_rl"
  c.init = "runs/judge"
  c.rewards.rules = {"audio": {"level_error": 1.0}, "text": {"level_error": 1.0}}
  if arg.size == "tiny":
    c.sampling.max_new_tokens = 72
  return c
