"""Results folders as `evaluate` leaves them, made up of scores."""

import json

import numpy as np

from stepaudio_jax.evals.parts import intervals, pairs

COLUMNS = ["Audio MC", "Big Bench Audio", "MMSU", "MMAU", "Spoken MQA"]
COLUMNS += ["Step-Caption", "Step-DU", "Step-SPQA"]
PUBLISHED = {
  "source": "a made-up report, table 1",
  "columns": COLUMNS,
  "rows": {
    "Big One": [79.67, 66.37, 99.4, 83.7, 79.8, 96.56, 75.55, 72.41, 63.6],
    "Other | One": [77.97, 41.15, 98.3, 79.03, 77.9, 93.74, None, 82.76, 79.4],
  },
}


def item(name, score, **given):
  """A row of NAME.items.jsonl."""
  content = [{"type": "text", "text": f"Question {name}?"}]
  return {
    "id": name,
    "condition": "audio",
    "sample": 0,
    "budget": None,
    "groups": {"task": "sound"},
    "messages": [{"role": "human", "content": content}],
    "gold": "yes",
    "choices": ["yes", "no"],
    "think": "Hm.",
    "reply": "yes" if score else "no",
    "raw": "Hm.</think>yes",
    "think_tokens": 10,
    "truncated": False,
    "extracted": "yes",
    "score": score,
    "official": score,
    "detail": {},
    "failed": None,
  } | given


def tone(hertz, seconds, rate):
  return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def mean(scores):
  """A metric of scores, None for no answer."""
  worth = [score or 0 for score in scores]
  answered = [score for score in scores if score is not None]
  low, high = intervals.bootstrap(worth)
  return {
    "mean": sum(worth) / len(worth),
    "low": low,
    "high": high,
    "answered": sum(answered) / len(answered) if answered else None,
    "n": len(worth),
  }


def entry(items):
  """Counts and metrics of items of one condition."""
  return {
    "n": len(items),
    "n_failed": sum(row["failed"] is not None for row in items),
    "n_unparsed": sum(row["score"] is None and row["failed"] is None for row in items),
    "metrics": {"accuracy": mean([row["score"] for row in items])},
  }


def grouped(items):
  out = {}
  for row in items:
    for kind, name in row["groups"].items():
      out.setdefault(kind, {}).setdefault(name, []).append(row)
  return {k: {n: entry(rows) for n, rows in g.items()} for k, g in out.items()}


def gap(items, changed):
  both = ({row["id"]: row["score"] or 0 for row in r} for r in (items, changed))
  return pairs.compared(*both)["difference"]


def condition(items, changed):
  """A condition's part of the summary."""
  drops = {
    kind: {
      name: gap(*([r for r in rows if r["groups"].get(kind) == name] for rows in both))
      for name in names
    }
    for both in [(items, changed)]
    for kind, names in grouped(changed).items()
  }
  whole = {
    "groups": grouped(changed),
    "drop": gap(items, changed),
    "group_drops": drops,
  }
  return {"metrics": entry(changed)["metrics"]} | whole


def summary(name, items, **given):
  """NAME.json of items, whichever conditions and budgets they have."""
  heard = [r for r in items if r["condition"] == "audio" and r["budget"] is None]
  others = {r["condition"] for r in items} - {"audio"}
  official = [r["official"] for r in heard if r["official"] is not None]
  return {
    "benchmark": name,
    "column": None,
    "checkpoint": "runs/one",
    "simulated": False,
    "settings": {"step": 100, "temperature": 0.7, "judge": {"kind": "rule"}},
    **entry(heard),
    "official": {
      "mean": sum(official) / len(official),
      "n": len(official),
      "left_out": len(heard) - len(official),
    },
    "groups": grouped(heard),
    "conditions": {
      one: condition(heard, [r for r in items if r["condition"] == one])
      for one in sorted(others)
    },
    "samples": None,
    "budgets": None,
    "chance": 0.5,
  } | given


def write(folder, name, items, **given):
  """Both files of a benchmark; returns the summary."""
  folder.mkdir(parents=True, exist_ok=True)
  lines = [json.dumps(row) + "\n" for row in items]
  (folder / f"{name}.items.jsonl").write_text("".join(lines))
  found = summary(name, items, **given)
  (folder / f"{name}.json").write_text(json.dumps(found))
  return found


def write_published(path, value=PUBLISHED):
  path.write_text(json.dumps(value))
  return path
