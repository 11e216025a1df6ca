"""Keys that recipes did not always have, and what does as was done without them.

A run that began before a key was there goes on with it where the key has the value
below: that of a switch which is off, or one under which the key is not read. A key
belongs here if, and only if, a run with that value does what the code did before the
key; others (a default that changed what is done) stay out, and such a run is refused.
"""

from collections.abc import Mapping
from typing import Any

# Values as config.json has them: tuples are lists.
OFF = {
  "head_chunks": 1,
  "offload": [],
  "adapters.rank": 0,
  "raters.room": 0,
  "raters.ridge": 0.0,
  "judge": "",
  "judge_key": "",
  "critic_first": False,
  "kl.target": 0.0,
  "rollout.refill_rounds": 0,
  "rollout.overlap": False,
  "rollout.max_age": 0,
  "sampling.max_think_tokens": 0,
  "sampling.slots": 0,
  "sampling.turns": 1,
  "sampling.reply_buckets": [],
  "rewards.uncertainty": 0.0,
  "rewards.noise": "fixed",
  "rewards.overlong.buffer_tokens": 0,
  "rewards.preference.mode": "none",
  "rewards.rubric.weight": 0.0,
  "rewards.rubric.learned": 1.0,
  "data.pack": False,
  "data.pack_rows": [],
  "data.buckets": [],
  "data.clip_buckets_s": [],
}
# Keys, or beginnings of keys, that are not read while these have those values.
UNREAD = {
  "adapters.": "adapters.rank",
  "asking.": "judge",
  "kl.horizon": "kl.target",
  "rewards.overlong.": "rewards.overlong.buffer_tokens",
  "rewards.preference.": "rewards.preference.mode",
  "rewards.turns": "sampling.turns",
  "data.share_prompts": "data.pack",
  "data.row_tokens": "data.pack",
}


def off(key: str, config: Mapping[str, Any]) -> bool:
  """Whether a flat config does what was done before it had this key."""
  if key in OFF:
    return config[key] == OFF[key]
  return any(
    key.startswith(start) and config[switch] == OFF[switch]
    for start, switch in UNREAD.items()
    if switch in config
  )
