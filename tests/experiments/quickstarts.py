"""Workdirs as a quick start leaves them, made up; every number is known by hand."""

import json

import numpy as np
import soundfile

TASKS = ("pitch", "speakers", "memory")
ARMS = ("rlvr", "rlvr_kl", "rlhf")
POLICIES = ("sft", *ARMS)
DIMENSIONS = (
  *("correctness", "acoustic_grounding", "instruction"),
  *("naturalness", "emotional_continuity", "coherence"),
)
SCRIPT = "<script>alert('a reply')</script>"
UNCLOSED = "I never stop thinking"  # gold: 1 throughout
RIGHT = "I hear a deep tone.\n</think>\nThe pitch is low."  # gold: correctness 5


def counts(correct, low, high):
  """Of 8 questions, one of them without a readable answer."""
  return {
    "n": 8,
    "n_failed": 0,
    "n_unparsed": 1,
    "correct": correct,
    "low": low,
    "accuracy": correct / 8,
    "high": high,
    "accuracy_answered": correct / 7,
  }


def world(policy, hearing=TASKS):
  """Only the SFT start is asked on silence; an arm's gold is 0.1 above the last's."""
  asked = policy == "sft"
  silence = counts(3, 0.1368, 0.6943)
  tasks = {
    name: counts(6, 0.4093, 0.9285)
    | {"chance": 0.5, "silence": silence if asked else None}
    | {"beats_silence": name in hearing if asked else None}
    for name in TASKS
  }
  mean = 3.31 + POLICIES.index(policy) / 10
  still = {"mean": 2.25, "low": 2.04, "high": 2.46, "n": 24} if asked else None
  gold = {"mean": mean, "low": 3.12, "high": 3.73, "n": 24, "silence": still}
  return {
    "benchmark": "world",
    "checkpoint": f"runs/q/{policy}",
    "simulated": True,
    "settings": {"temperature": 0.0, "top_k": None},
    "tasks": tasks,
    "dimensions": dict.fromkeys(DIMENSIONS, gold),
  }


# ─── Dialogues ────────────────────────────────────────────────────────────────────────


def human(text, clip=None):
  blocks = [{"type": "audio", "path": clip}] if clip else []
  return {"role": "human", "content": [*blocks, {"type": "text", "text": text}]}


def assistant(text):
  return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def item(name, messages, correct, score, reply):
  return {
    "id": name,
    "task": name.split("-")[0],
    "messages": messages,
    "answer": f"answer of {name}",
    "condition": "audio",
    "think": "I hear it.",
    "reply": reply,
    "raw": f"I hear it.\n</think>\n{reply}",
    "correct": correct,
    "scores": dict.fromkeys(DIMENSIONS, score),
    "truncated": False,
  }


def items(policy="sft"):
  """Seven dialogues; the first of pitch has no sound.

  Every gold score of the SFT start is 3, and so is RLVR with KL's; RLHF's is 3.5;
  RLVR's is 4 and 2 by turns. Right are: SFT 3, RLVR 7, RLVR with KL 3, RLHF 2.
  """
  told = [human("Remember.", "a.flac"), assistant("Noted."), human("And?", "b.flac")]
  short = [human("One turn.", "a.flac")]
  asked = {
    "pitch-text": [human("No clip here.")],
    "memory-long": [*told, assistant("the reference")],
    "pitch-first": short,
    "pitch-second": short,
    "speakers-first": short,
    "memory-second": told,
    "speakers-second": short,
  }
  right = {"sft": 3, "rlvr": 7, "rlvr_kl": 3, "rlhf": 2}[policy]
  rows = []
  for k, (name, messages) in enumerate(asked.items()):
    score = {"sft": 3.0, "rlvr": 4.0 - 2 * (k % 2), "rlvr_kl": 3.0, "rlhf": 3.5}[policy]
    reply = {"pitch-first": SCRIPT, "speakers-first": "Two & <b>loud</b>."}.get(name)
    reply = reply if policy == "sft" and reply else f"{policy} says {name}"
    rows.append(item(name, messages, k < right, score, reply))
  if policy == "sft":
    rows += [{**row, "condition": "silence", "reply": "silent"} for row in rows]
  return rows


def clip(frequency):
  """0.2 s of a tone, as a FLAC file holds it."""
  time_N = np.arange(3200) / 16_000
  return np.round(np.sin(2 * np.pi * frequency * time_N) * 16384) / 32768


# ─── Training ─────────────────────────────────────────────────────────────────────────


def metrics(name):
  rows = [{"step": 5 * k, "train/loss": 8.0 / k, "time/step_s": 0.1} for k in (1, 2, 4)]
  for row in rows:
    if name == "hear":
      row |= {"train/ctc": row["train/loss"] / 2, "train/accuracy_pitch": None}
    else:
      row |= {"train/loss_dialogue": row["train/loss"], "train/accuracy": 0.5}
  rows[-1] |= {"train/accuracy_pitch": 0.75} if name == "hear" else {}
  return rows


def arm_metrics(arm):
  """Two steps; KL 0.1, 0.2, 0.3 by arm at the second, 0 at the first."""
  kl = (ARMS.index(arm) + 1) / 10
  known = {
    "train/reply_tokens": 20.0,
    "train/entropy": 1.5,
    "train/unclosed_share": 0.0,
  }
  return [
    {"step": 1, "train/kl_k3": 0.0, **known},
    {"step": 2, "train/kl_k3": kl, **known},
  ]


def truth(name):
  return {
    "id": name,
    "task": "pitch",
    "answer": "low",
    "choices": ["low", "middle", "high"],
    "slot": None,
    "instruction": None,
    "emotion": "neutral",
    "facts": [],
    "clips": [],
    "turns": 1,
  }


def sample(arm, step, prompt, text, objective):
  names = DIMENSIONS if arm == "rlhf" else ("accuracy", "think_format")
  return {
    "step": step,
    "prompt_id": f"{prompt}#0",
    "dialogue_id": prompt,
    "text": text,
    "reward": dict.fromkeys(names, objective),
    "objective": objective,
  }


def samples(arm):
  """A step of unclosed thoughts, which RLHF leaves out, then one of right replies."""
  lost = None if arm == "rlhf" else 0.0
  return [
    sample(arm, step, name, text, value)
    for step, text, value in ((1, UNCLOSED, lost), (2, RIGHT, 0.8))
    for name in ("train-a", "train-b")
  ]


def heldout(arm):
  """Gold: RLVR stays, RLVR with KL falls, RLHF rises."""
  texts = {
    "rlvr": (UNCLOSED, UNCLOSED),
    "rlvr_kl": (RIGHT, UNCLOSED),
    "rlhf": (UNCLOSED, RIGHT),
  }[arm]
  return [
    sample(arm, step, name, text, 0.5)
    for step, text in zip((0, 2), texts, strict=True)
    for name in ("held-a", "held-b")
  ]


def exam(arm):
  """The own objective rises from 0.25 to 0.75 with every arm."""
  gain = {"start": 0.25, "end": 0.75, "gain": 0.5, "low": 0.31, "high": 0.69}
  same = {"start": 0.0, "end": 0.0, "gain": 0.0, "low": 0.0, "high": 0.0, "missing": 0}
  tokens = {**same, "start": 19.5, "end": 21.5 + ARMS.index(arm)}
  kl = {**same, "end": 0.125 * (1 + ARMS.index(arm))}
  values = {"objective": gain | {"missing": 2}, "tokens": tokens, "kl": kl}
  return {"steps": [0, 2], "prompts": 2, **values, "entropy": same}


def reward_model():
  part = {
    "accuracy": 0.71,
    "low": 0.66,
    "high": 0.76,
    "n": 88,
    "n_ties": 20,
    "silence": {"accuracy": 0.61, "low": 0.56, "high": 0.66},
    "length": {"accuracy": 0.55, "low": 0.5, "high": 0.6, "rule": "shorter"},
    "over_silence": {"mean": 0.1, "low": 0.05, "high": 0.15},
    "over_length": {"mean": 0.16, "low": 0.11, "high": 0.21},
    "ceiling": {"accuracy": 0.84, "low": 0.8, "high": 0.88},
  }
  level = part | {"over_length": {"mean": 0.01, "low": -0.02, "high": 0.04}}
  named = {"overall": part} | dict.fromkeys(DIMENSIONS, level)
  return {"simulated": True, "comparisons": 36, "dialogues": 12, "dimensions": named}


# ─── Folders ──────────────────────────────────────────────────────────────────────────


def make(folder, *, hearing=TASKS, smoke=False, rows=None):
  """Writes what a quick start leaves.

  Args:
    rows: {policy: its items} in the place of the made-up ones.
  """
  stage = {"name": "hear", "title": "Hear <i>", "seconds": 61.4, "resumed": True}
  documents = {
    "stages.json": {
      "total_seconds": 458.1,
      "smoke": smoke,
      "command": "python -m q --workdir D",
      "stages": [stage | {"note": "killed & resumed"}],
    },
    "rlhf/manifest.json": {
      "command": ["q"],
      "python": "3.12.3",
      "packages": {"jax": "0.11.2"},
      "commit": "0123abcd+",
      "seeds": {"seed": 17},
      "devices": ["TPU v5"],
      "device_count": 4,
      "visible_cores": 7,
    },
    "evaluation/rm/reward_model.json": reward_model(),
  }
  lines = {"world/truth-train.jsonl": [truth("train-a"), truth("train-b")]}
  lines["world/truth-heldout.jsonl"] = [truth("held-a"), truth("held-b")]
  for name in ("hear", "speak", "sft", "rm"):
    documents[f"{name}/config.json"] = {"hash": f"feed{name}", "config": {"lr": 0.002}}
    lines[f"{name}/metrics.jsonl"] = metrics(name)
  for arm in ARMS:
    terms = {
      "rewards.rules.audio.accuracy": 0.8,
      "rewards.rules.audio.think_format": 0.2,
    }
    terms = {"rewards.learned.correctness": 2.0} if arm == "rlhf" else terms
    documents[f"{arm}/config.json"] = {"hash": "beef", "config": {**terms, "seed": 0}}
    documents[f"{arm}/heldout.json"] = exam(arm)
    lines[f"{arm}/metrics.jsonl"] = arm_metrics(arm)
    lines[f"{arm}/samples.jsonl"] = samples(arm)
    lines[f"{arm}/heldout.jsonl"] = heldout(arm)
  for policy in POLICIES:
    documents[f"evaluation/{policy}/world.json"] = world(policy, hearing)
    found = (rows or {}).get(policy) or items(policy)
    lines[f"evaluation/{policy}/world.items.jsonl"] = found
    documents[f"export/{policy}/config.json"] = {}
  for name, value in documents.items():
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(json.dumps(value))
  for name, found in lines.items():
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in found))
  (folder / "export" / "rlhf" / "model.safetensors").write_bytes(b"\0" * 1_234_000)
  soundfile.write(folder / "evaluation" / "a.flac", clip(440), 16_000)
  soundfile.write(folder / "world" / "b.flac", clip(880), 16_000)
  return folder
