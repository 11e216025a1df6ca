"""Workdirs as a quick start leaves them, made up."""

import json

import numpy as np
import soundfile

TASKS = ("pitch", "speakers", "memory")
SCRIPT = "<script>alert('a reply')</script>"


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


def world(hearing):
  tasks = {
    name: counts(6, 0.4093, 0.9285)
    | {"chance": 0.5, "silence": counts(3, 0.1368, 0.6943)}
    | {"beats_silence": name in hearing}
    for name in TASKS
  }
  silence = {"mean": 2.25, "low": 2.04, "high": 2.46, "n": 24}
  gold = {"mean": 4.31, "low": 4.12, "high": 4.53, "n": 24, "silence": silence}
  return {
    "benchmark": "world",
    "checkpoint": "runs/q/sft",
    "simulated": True,
    "settings": {"temperature": 0.0, "top_k": None},
    "tasks": tasks,
    "dimensions": {"naturalness": gold, "acoustic_grounding": gold},
  }


def human(text, clip=None):
  blocks = [{"type": "audio", "path": clip}] if clip else []
  return {"role": "human", "content": [*blocks, {"type": "text", "text": text}]}


def assistant(text):
  return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def pair(name, task, correct, messages, reply="Yes."):
  """Rows of one dialogue: with the sound, and on silence."""
  row = {"id": name, "task": task, "messages": messages, "answer": f"answer of {name}"}
  row |= {"raw": f"I hear it.\n</think>\n{reply}", "truncated": False}
  heard = {"condition": "audio", "think": "I hear it.", "reply": reply}
  silent = {"condition": "silence", "think": "", "reply": f"silent {name}"}
  scores = {"scores": {"naturalness": 4.5, "acoustic_grounding": 2.0}}
  return [row | scores | c | {"correct": k} for c, k in ((heard, correct), (silent, 0))]


def items():
  told = [human("Remember.", "a.flac"), assistant("Noted."), human("And?", "b.flac")]
  short = [human("One turn.", "a.flac")]
  rows = [
    *pair("text-right", "pitch", True, [human("No clip here.")]),
    *pair("memory-short", "memory", True, short),
    *pair("memory-wrong", "memory", False, told),
    *pair("pitch-unread", "pitch", None, short, ""),
    *pair("memory-right", "memory", True, [*told, assistant("the reference")]),
    *pair("pitch-wrong", "pitch", False, short, SCRIPT),
    *pair("pitch-right", "pitch", True, short),
    *pair("speakers-right", "speakers", True, short, "Two & <b>loud</b>."),
  ]
  return [
    row | {"correct": None if row["correct"] is None else bool(row["correct"])}
    for row in rows
  ]


def metrics(name):
  rows = [{"step": 5 * k, "train/loss": 8.0 / k, "time/step_s": 0.1} for k in (1, 2, 4)]
  for row in rows:
    if name == "hear":
      row |= {"train/ctc": row["train/loss"] / 2, "train/accuracy_pitch": None}
    else:
      row |= {"train/loss_dialogue": row["train/loss"], "train/accuracy": 0.5}
  rows[-1] |= {"train/accuracy_pitch": 0.75} if name == "hear" else {}
  return rows


def clip(frequency):
  """0.2 s of a tone, as a FLAC file holds it."""
  time_N = np.arange(3200) / 16_000
  return np.round(np.sin(2 * np.pi * frequency * time_N) * 16384) / 32768


def make(folder, *, hearing=TASKS, smoke=False, rows=None):
  """Writes what a quick start leaves."""
  for name in ("hear", "speak", "sft"):
    (folder / name).mkdir(parents=True)
    lines = [json.dumps(row) + "\n" for row in metrics(name)]
    (folder / name / "metrics.jsonl").write_text("".join(lines))
  stage = {"name": "hear", "title": "Hear <i>", "seconds": 61.4, "resumed": True}
  documents = {
    "stages.json": {
      "total_seconds": 458.1,
      "smoke": smoke,
      "command": "python -m q --workdir D",
      "stages": [stage | {"note": "killed & resumed"}],
    },
    "sft/manifest.json": {
      "command": ["q"],
      "python": "3.12.3",
      "packages": {"jax": "0.11.2"},
      "commit": "0123abcd+",
      "seeds": {"seed": 17},
      "devices": ["TPU v5"],
      "device_count": 4,
      "visible_cores": 7,
    },
    "sft/config.json": {"hash": "feedbeef", "config": {"optim.lr": 0.002}},
    "evaluation/world.json": world(hearing),
    "export/config.json": {},
  }
  for name, value in documents.items():
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(value))
  (folder / "export" / "model.safetensors").write_bytes(b"\0" * 1_234_000)
  lines = [json.dumps(row) + "\n" for row in rows or items()]
  (folder / "evaluation" / "world.items.jsonl").write_text("".join(lines))
  soundfile.write(folder / "evaluation" / "a.flac", clip(440), 16_000)
  (folder / "world").mkdir()
  soundfile.write(folder / "world" / "b.flac", clip(880), 16_000)
  return folder
