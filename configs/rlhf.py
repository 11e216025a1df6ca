r"""RLHF: the loop of configs/rlvr.py on a learned reward of many dimensions.

  python -m stepaudio_jax.train_rl --config configs/rlhf.py --workdir runs/rlhf \
    --config.init=runs/sft --config.reward_model=runs/rm \
    --config.data.options.prompts.path=runs/world/prompts-{split}.jsonl

What is not named here is RLVR's own value, so that the two can be compared: the same
start, prompts, number of replies and updates. PPO-style clip and a KL to the reference
(R1.5 §3.3). `normalisation=gdpo` compares each dimension within its group before the
weights are applied (arXiv 2601.05242), each within ±`algorithm.reward_clip`; "sum"
compares the weighted sum. What a group's differences are divided by is at least
`algorithm.std_floor`, for learned rewards are noisy; `noise=measured` takes the noise
of each dimension that `evaluate --benchmark reward_model` found and left beside the
reward model (core/noise.py), and 1e-4 for rules. `algorithm=` takes every name that
RLVR's takes; the KL stays in the loss (`--config.kl.where=reward` puts it in the
reward, as REINFORCE++ and RLOO have it). The reward model may be of another size than
the policy; it must hear through the same encoder, and is split over the same mesh.

`--config.reward_model=runs/rm-0,runs/rm-1` takes the mean of several reward models, of
one recipe with other seeds. How far they are apart on a reply is logged as one more
dimension of weight 0, `reward/<dimension>/disagreement/…`, and stands in samples.jsonl;
`--config.rewards.uncertainty=1.0` takes so many of it off each learned reward.

Prompts with a rubric and plain ones make one stream of batches, for separate stages
forget (R1.5 §3.3). Rows of any file may have a `rubric`; `rubric=0.3` draws that share
of the prompts from a file of their own. Who reads rubrics, and what that weighs:
  --config.judge=https://HOST/v1#MODEL --config.rewards.rubric.weight=2.0
A judge that cannot be read masks the reply; `rewards.rubric.learned` is a factor of the
learned dimensions' weights on these prompts. The same judge compares replies to plain
prompts with a reply that stays (`--config.rewards.preference.mode=reference
--config.rewards.preference.weight=1.0`) or with each other (`mode=group`):
rollout/preference.py; `prompts=all` compares those with a rubric by it, as R1.5 does.
configs/judge.py trains such a judge.

`veto=0.5` gives replies whose correctness is below that reward the worst of their group
in all else (rl/parts/veto.py; other rewards veto by `c.rewards.veto = {NAME:
THRESHOLD}` in a recipe of one's own). Rewards that say nothing, or go with the length
of replies, are warned of, as are lost entropy and a KL that runs off: `log.warn`,
rollout/watch.py, and warnings.jsonl in the workdir.

Sizes for pods are laid out for 128 chips of v5p (experiments/fit tells memory and time
of a step): the four chips of a host share a row, and an update takes a prompt's 16
replies at a time, with PPO first for the critic (`critic_first`), then for the policy.
On N chips `--config.microbatches` is 64 · 4 / N; where that is no whole number, change
`prompts_per_step`.
"""

import math

from ml_collections import ConfigDict

from configs import rlvr
from stepaudio_jax.core import recipe


def get_config(arg: str = "") -> ConfigDict:
  known = {"size": "tiny", "algorithm": "grpo", "normalisation": "sum", "smoke": False}
  known |= {"noise": "fixed", "veto": math.nan}
  arg = recipe.parse(arg, rubric=0.0, **known)
  smoke = ",smoke" if arg.smoke else ""
  c = rlvr.get_config(f"size={arg.size},algorithm={arg.algorithm}{smoke}")
  c.stage = "rlhf"
  c.reward_model = "runs/rm"
  c.rewards.rules = ConfigDict()
  c.rewards.learned = {
    "correctness": 2.0,
    "acoustic_grounding": 0.5,
    "instruction": 1.0,
    "naturalness": 1.0,
    "emotional_continuity": 1.0,
    "coherence": 1.0,
  }
  if "normalisation" in c.algorithm:
    c.algorithm.normalisation = arg.normalisation
  elif arg.normalisation != "sum":
    raise ValueError(
      f"normalisation={arg.normalisation!r} with algorithm={arg.algorithm!r}, which "
      "has 'sum' only; grpo, dapo, gspo and cispo have 'gdpo'"
    )
  c.rewards.noise = arg.noise
  if not math.isnan(arg.veto):
    c.rewards.veto = {"correctness": arg.veto}
  if "std_floor" in c.algorithm and arg.noise == "fixed":
    c.algorithm.std_floor = 0.05  # learned rewards are noisy: near-ties stay small
  if arg.rubric:
    c.data.mix = {"prompts": 1.0 - arg.rubric, "rubric": arg.rubric}
    path = "runs/world/rubric-{split}.jsonl"
    c.data.options.rubric = {"set": "dialogue", "path": path}
  c.kl.beta = 0.02 if arg.size == "tiny" else 0.001
  if arg.size not in ("tiny", "small"):  # for 128 chips of v5p: see experiments/fit
    # The 16 replies to a prompt are one part of an update; the four chips of a host
    # share its rows.
    c.mesh.context = 4
    c.microbatches = 2
    c.remat = "full"
    if "critic_first" in c:
      c.critic_first = True
    c.data.share_prompts = False  # the TPU's attention kernel reads copies alone
    c.heldout.prompts = 128  # batches that 32 groups of devices can share
    c.heldout.batch_size = 64
  return c
