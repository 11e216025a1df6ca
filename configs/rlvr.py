r"""RLVR: a policy gradient on rewards that a rule can check.

  python -m stepaudio_jax.train_rl --config configs/rlvr.py --workdir runs/rlvr \
    --config.init=runs/sft \
    --config.data.options.prompts.path=runs/world/prompts-{split}.jsonl

Audio prompts: 0.8 · [answer right] + 0.2 · [reasoning present]; text prompts:
1.0 · [answer right] (R1 §4). `algorithm=ppo` is the report's choice: clip 0.2,
γ = λ = 1, no KL, the reward on the last token, one update a rollout. The others need no
critic: grpo, drgrpo, rloo, reinforce_pp, dapo, gspo, cispo, each a file of rl/ that
names its paper, with its own aggregation of the loss (`aggregation`; "constant" divides
every reply's loss by `sampling.max_new_tokens`). `text=0.25` draws that share of the
prompts from questions without sound (R1 §4.2). Sizes other than tiny take R1's 16
samples of up to 10,240 tokens and its learning rate; tiny takes what moves a tiny model
in minutes.

`kl.target` (nats per token, `train/kl_k3`) has `kl.beta` follow it; `train/kl_beta` is
what it was. `correction` weighs the loss of each token by what the trainer's
log-probability says of the sampler's (rl/parts/correction.py): "tis" within low and
limit, "icepop" (its authors' are 0.5 and 5), "sequence_mask" or "none".
`rewards.overlong` takes up to `weight` from replies within `buffer_tokens` of the
limit; 0 is off. dapo has a fifth of the limit there, and refills groups without
spread (`rollout.refill_rounds`).

`sampling.turns=3` plays the last three human turns of each dialogue, the model's own
answers between them (rollout/talks.py): a row a turn, compared with the other samples'
replies to the same turn. `rewards.turns=each` rewards each for itself: a rule that
needs the dialogue's answer speaks of the last turn only, and a turn of which none
speaks is not learnt from. `rewards.turns=last` gives the last one's reward to all.
"""

from ml_collections import ConfigDict

from stepaudio_jax.core import recipe


def get_config(arg: str = "") -> ConfigDict:
  arg = recipe.parse(arg, size="tiny", algorithm="ppo", text=0.0, smoke=False)
  tiny = arg.size == "tiny"
  large = arg.size in _SAMPLING_TENSOR
  c = ConfigDict()
  c.stage = "rlvr"
  c.seed = 0
  c.size = arg.size
  c.tokenizer = "tiny"
  c.init = "runs/sft"
  c.reference = ""  # "": init
  c.reward_model = ""
  # Of rubrics and comparisons: a checkpoint, or https://HOST/v1#MODEL; "": nobody.
  c.judge = ""
  c.judge_key = ""  # environment variable with the endpoint's key
  c.asking = {  # the judge; a checkpoint has max_tokens alone, and always hears
    "max_tokens": 4096,
    "concurrency": 8,
    "timeout_s": 300.0,
    "hears": False,  # an endpoint that takes input_audio
    "weighs": False,  # one that tells logprobs, for phi="expected"
    "prompt_price": 0.0,  # of a million tokens, for judge/cost
    "completion_price": 0.0,
  }
  c.total_steps = 2 if arg.smoke else 20 if tiny else 200
  c.prompts_per_step = 4 if arg.smoke else 16 if tiny else 64
  c.epochs = 1
  c.minibatches = 1
  c.microbatches = 1
  c.dtype = "bfloat16" if large else "float32"
  c.remat = "attention" if large else "none" if tiny else "full"
  c.head_chunks = 8 if large else 1
  c.attention = "auto"
  c.offload = ()  # "optimiser", "reference": to the host's memory

  c.sampling = {
    "samples": 4 if arg.smoke else 8 if tiny else 16,
    "max_new_tokens": 48 if tiny else 10240,
    "temperature": 1.0,
    "max_think_tokens": 0,  # longer thoughts are closed; 0: never
    "slots": 0,  # replies decoded at a time, ended ones make room; 0: all
    "reply_buckets": (),  # lengths below max_new_tokens that updates may have
    "turns": 1,  # last human turns of a dialogue, own replies between them
  }
  c.rollout = {
    "refill_rounds": 0,  # rounds in which groups without spread are replaced; 0: none
    "overlap": False,  # replies of the next step are begun before the update
    "max_age": 0,  # steps learnt since a reply that is trained on
  }
  c.gate = {  # sampler against trainer; 0: off
    "max_abs": 0.0 if large else 1e-3,
    "min_pearson": 0.995 if large else 0.0,
  }
  c.rewards = ConfigDict()
  c.rewards.rules = {
    "audio": {"accuracy": 0.8, "think_format": 0.2},
    "text": {"accuracy": 1.0},
  }
  c.rewards.turns = "each"  # of sampling.turns; or "last": its reward is all turns'
  c.rewards.learned = ConfigDict()  # {dimension of the reward model: weight}
  c.rewards.uncertainty = 0.0  # standard deviations of an ensemble that are taken off
  # On prompts with a rubric: the judge's reward, and a factor of learned weights.
  c.rewards.rubric = {"weight": 0.0, "learned": 1.0}
  # Replies compared by the judge, see rollout/preference.py.
  c.rewards.preference = {
    "mode": "none",  # "reference": with a reply that stays; "group": with each other
    "weight": 0.0,
    "prompts": "plain",  # without a rubric; or "all": the judge reads it
    "phi": "linear",  # or "expected", "calibrated"
    "calibration": "",
    "offsets": 4,  # of "group": comparisons in which a reply comes first
    "fit": "least_squares",  # or "bradley_terry"
  }
  # Of learned rewards, what a group's spread is divided by at least: that of
  # algorithm.std_floor, or "measured" of the reward model.
  c.rewards.noise = "fixed"
  c.rewards.veto = ConfigDict()  # {reward: threshold}, see rl/parts/veto.py
  c.rewards.overlong = {"buffer_tokens": 0, "weight": 1.0}
  if arg.algorithm == "dapo":
    c.rewards.overlong.buffer_tokens = c.sampling.max_new_tokens // 5
    c.rollout.refill_rounds = 1 if arg.smoke else 4
  own = recipe.choose("algorithm", arg.algorithm, _ALGORITHMS)
  c.algorithm = {"name": arg.algorithm, **own}
  if not tiny and "dual_clip" in own:
    c.algorithm.dual_clip = 0.0  # no part of R1's PPO
  c.aggregation = _AGGREGATIONS.get(arg.algorithm, "token_mean")
  c.kl = {
    "beta": 0.0,
    "estimator": "k3_k2",
    "where": "loss",  # or "reward", as k1
    "target": 0.0,  # nats per token that beta follows; 0 = off
    "horizon": 10_000,  # replies
  }
  c.correction = {"kind": "tis", "limit": 2.0, "low": 0.0}

  c.data = ConfigDict()
  c.data.split = "train"
  c.data.mix = {"prompts": 1.0}
  c.data.options = {
    "prompts": {"set": "dialogue", "path": "runs/world/prompts-{split}.jsonl"}
  }
  if arg.text:
    c.data.mix = {"prompts": 1.0 - arg.text, "written": arg.text}
    c.data.options.written = {"set": "dialogue", "path": "runs/world/text-train.jsonl"}
  c.data.cache = ""  # "": workdir/cache
  c.data.max_tokens = 112 if tiny else 4096
  c.data.max_clips = 1 if tiny else 4
  c.data.max_clip_s = 3.2 if tiny else 25.0
  c.data.buckets = ()  # lengths below max_tokens that batches of prompts may have
  c.data.clip_buckets_s = ()  # and lengths of their clips below max_clip_s
  c.data.encode_batch = 16
  c.data.history = "answer"
  c.data.pack = not tiny  # replies without padding between them, many to a row
  c.data.share_prompts = True  # in a packed row; False: a copy for each reply
  c.data.row_tokens = 0  # of a packed row; 0: of the longest prompt with one reply
  c.data.pack_rows = ()  # numbers of rows in a pack, so many programs; (): any
  c.heldout = {
    "split": "heldout",
    "prompts": 4 if arg.smoke else 168,
    "samples": 3,  # rollout seeds
    "batch_size": 4 if arg.smoke else 42,
    "every_steps": 0,  # 0: at the start and at the end
  }

  c.optim = {
    "name": "muon" if tiny else "adamw",
    "lr": 5e-4 if tiny else 1e-6,
    "schedule": "constant",
    "warmup_steps": 0,
    "b1": 0.95 if tiny else 0.9,
    "b2": 0.98,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "clip_norm": 1.0,
  }
  if arg.algorithm == "ppo":
    c.critic_optim = {**c.optim.to_dict(), "lr": 5e-4 if tiny else 1e-5}
    # Its gradient before the policy's: one model's activations at a time.
    c.critic_first = False
  data, fsdp = (1, -1) if large else (-1, 1)
  c.mesh = {"data": data, "fsdp": fsdp, "tensor": 1, "context": 1}
  tensor = _SAMPLING_TENSOR.get(arg.size, 1)
  c.sampling_mesh = {"data": -1, "fsdp": 1, "tensor": tensor, "context": 1}
  c.checkpoint = {"every_steps": 1 if arg.smoke else 10, "keep": 2}
  c.log = {"every_steps": 1, "prompts": 16}
  c.log.warn = {  # see rollout/watch.py; 0: never
    "window": 10,  # steps
    "no_spread": 0.95,  # share of the groups, of a reward with a weight
    "length_rho": 0.4,  # of a learned reward with reply tokens, within groups
    "entropy": 0.1,  # of the first window's
    "kl": 1.0,  # nats per token
  }
  return c


# A decoded token reads every weight: split over as many devices as there are KV heads.
_SAMPLING_TENSOR = {"step_audio_2_mini": 4, "step_audio_r1": 8}
_CLIP = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 0.0}
_PPO = {**_CLIP, "dual_clip": 3.0, "normalisation": "sum"}
_GROUP = {"std_floor": 1e-4, "normalisation": "sum", "reward_clip": 5.0}
_ALGORITHMS = {
  "ppo": {**_PPO, "gamma": 1.0, "lambda_": 1.0, "whiten": True, "value_clip": 0.2},
  "grpo": {**_PPO, **_GROUP, "scale_by_std": True},
  "drgrpo": _CLIP,
  "rloo": _CLIP,
  "reinforce_pp": {**_CLIP, "baseline": False},
  "dapo": {**_CLIP, "clip_high": 0.28, **_GROUP},
  "gspo": {"clip_low": 3e-4, "clip_high": 4e-4, **_GROUP},
  "cispo": {"ratio_limit": 5.0, **_GROUP},
}
# The mean over all tokens is that of the others.
_AGGREGATIONS = {"drgrpo": "constant", "gspo": "sequence_mean_token_mean"}
