"""The published scorers' data as benchmark folders, read by the benchmarks."""

import collections
import json
import pathlib

import pytest

from stepaudio_jax.core import replies
from stepaudio_jax.evals import mmar, mmau, mmsu, spoken_mqa

SCORING = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "scoring"


def rows(name):
  """Rows of a file, or a skip that says where it was looked for."""
  path = SCORING / name
  if not path.exists():
    pytest.skip(f"official scorers' data are not at {path}")
  text = path.read_text(encoding="utf-8")
  if name.endswith(".json"):
    return json.loads(text)
  return [json.loads(line) for line in text.splitlines()]


def totals(name):
  return rows("expected_totals.json")[name]


def audio(folder, names):
  """Files that are there; nothing decodes them."""
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"audio")


def written(folder, name, values):
  folder.mkdir(parents=True, exist_ok=True)
  text = json.dumps(values) if name.endswith(".json") else None
  lines = "\n".join(json.dumps(value) for value in values)
  (folder / name).write_text(lines if text is None else text, encoding="utf-8")


def mmau_items(folder):
  """(items, made-up replies, expected rows)."""
  asked = rows("mmau_testmini_constructed.input.json")
  audio(folder, [row["audio_id"] for row in asked])
  written(folder, "mmau-test-mini.json", asked)
  expected = rows("mmau_testmini_constructed.expected.jsonl")
  return mmau.read(folder), [row["model_output"] for row in asked], expected


def mmar_items(folder):
  asked = rows("mmar_constructed.input.jsonl")
  asked = [{**row, "audio_path": f"./audio/{row['id']}.wav"} for row in asked]
  audio(folder, [row["audio_path"] for row in asked])
  written(folder, "MMAR-meta.json", asked)
  expected = rows("mmar_constructed.expected.jsonl")
  return mmar.read(folder), [row["answer_prediction"] for row in asked], expected


def mmsu_items(folder, name):
  """Rows keep their order; the ids of the quirk file come twice, so they are numbered.

  A row is both what is asked and what is expected.
  """
  asked = [{**row, "id": f"{k}-{row['id']}"} for k, row in enumerate(rows(name))]
  asked = [{**row, "audio_path": "audio/one.wav"} for row in asked]
  audio(folder, ["audio/one.wav"])
  written(folder / "question", "mmsu.jsonl", asked)
  return mmsu.read(folder), [row["response"] for row in asked], asked


def spoken_items(folder):
  """Replies of real logs are numbers already."""
  expected = rows("spoken_mqa.jsonl")
  asked = [
    {
      "id": f"{row['kind']} {k}",
      "context": {"path": "one.wav", "bytes": None},
      "answer": {"text": row["reference"][0], "audio": None},
      "subset": row.get("subset") or _subset(row["reference_style"]),
    }
    for k, row in enumerate(expected)
  ]
  audio(folder, ["one.wav"])
  written(folder, "spoken_mqa.jsonl", asked)
  said = [row.get("prediction", row.get("cleaned_prediction")) for row in expected]
  return spoken_mqa.read(folder), said, expected


def _subset(style):
  return {"arithmetic": "short_digit", "reasoning": "multi_step_reasoning"}[style]


def answer(reply, form):
  """The text behind the thought; of the forms only those so named open one."""
  return replies.split_reply(reply, thinking=form.startswith("think"))[1]


def compared(folder):
  """{(benchmark, form): counts}: how our rule and the published one differ.

  Counts are items, right by the published rule, right by ours, unparsed by ours, right
  by the published rule only, right by ours only.
  """
  found = collections.defaultdict(collections.Counter)
  for name, module, (items, said, expected) in (
    ("MMAU", mmau, mmau_items(folder / "mmau")),
    ("MMAR", mmar, mmar_items(folder / "mmar")),
    ("MMSU", mmsu, mmsu_items(folder / "mmsu", "mmsu_constructed.jsonl")),
    ("Spoken MQA", spoken_mqa, spoken_items(folder / "spoken")),
  ):
    forms = [row.get("form", row.get("template", "real log")) for row in expected]
    answers = [answer(*pair) for pair in zip(said, forms, strict=True)]
    official = module.official(items, answers)
    for item, form, text, value in zip(items, forms, answers, official, strict=True):
      score = module.score(item, text).value
      theirs, ours = value == 1, score == 1
      only = theirs and not ours, ours and not theirs
      for k, counted in enumerate((True, theirs, ours, score is None, *only)):
        found[name, form][k] += counted
  return {key: tuple(cell[k] for k in range(6)) for key, cell in found.items()}
