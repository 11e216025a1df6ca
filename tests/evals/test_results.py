"""Results folders read back: the one form, world in it, and all that is wrong."""

import json

import pytest

from stepaudio_jax.data.world import gold
from stepaudio_jax.evals import world
from stepaudio_jax.evals.parts import results
from tests.report import folders
from tests.report.folders import item


def test_items_as_asked_are_apart_from_controls_budgets_and_samples(tmp_path):
  items = [
    item("a", 1, think_tokens=10),
    item("a", 0, sample=1, think_tokens=20),
    item("b", None, reply=None, think_tokens=None),
    item("c", None, failed="no sound", think_tokens=None),
    item("a", 0, condition="silence", think_tokens=1000),
    item("a", 0, budget=64, think_tokens=1000),
  ]
  folders.write(tmp_path, "mmau", items, conditions={})
  found = results.folder(tmp_path).results["mmau"]
  assert found.scores() == {"a": 0.5, "b": 0.0, "c": 0.0}
  assert found.think_tokens() == 15
  assert found.metric == "accuracy"


def test_what_may_be_missing_is_none_or_empty(tmp_path):
  row = {key: item("a", 1)[key] for key in ("id", "condition", "messages", "score")}
  (tmp_path / "x.items.jsonl").write_text(json.dumps(row))
  whole = folders.summary("x", [item("a", 1)])
  needed = ("benchmark", "checkpoint", "settings", "n", "n_failed", "n_unparsed")
  needed += ("metrics",)
  (tmp_path / "x.json").write_text(json.dumps({key: whole[key] for key in needed}))
  found = results.benchmark(tmp_path, "x")
  assert (found.summary["chance"], found.summary["groups"]) == (None, {})
  assert (found.items[0]["budget"], found.items[0]["detail"]) == (None, {})


def _world():
  """Items of three dialogues, two tasks; c could not be asked."""
  row = {"messages": [], "think": None, "reply": "x", "raw": "x", "truncated": False}
  scores = dict.fromkeys(gold.DIMENSIONS, 3.0)
  tasks = {"a": "pitch", "b": "pitch", "c": "digits"}
  correct = {"audio": (True, True, None), "silence": (True, None, None)}
  return [
    row
    | {"id": name, "task": task, "condition": condition, "answer": "high"}
    | {"correct": right, "scores": {} if name == "c" else scores}
    | {"failed": "too long" if name == "c" else None}
    for condition, rights in correct.items()
    for (name, task), right in zip(tasks.items(), rights, strict=True)
  ]


def test_world_is_brought_to_the_one_form(tmp_path):
  items = _world()
  truth = {"answer": "high", "choices": ["high", "low"]}
  truths = [
    truth | {"id": row["id"], "task": row["task"]}
    for row in items
    if row["condition"] == "audio"
  ]
  summary = {"benchmark": "world", "checkpoint": "runs/sft", "settings": {}}
  summary |= world.summary(items, truths)
  (tmp_path / "world.json").write_text(json.dumps(summary))
  lines = "".join(json.dumps(row) + "\n" for row in items)
  (tmp_path / "world.items.jsonl").write_text(lines)
  found = results.folder(tmp_path).results["world"]
  assert found.scores() == {"a": 1.0, "b": 1.0, "c": 0.0}
  assert found.summary["simulated"] is True
  assert [found.summary[key] for key in results.COUNTS] == [3, 1, 0]
  replaced = {row["condition"]: row["replaced"] for row in found.items}
  assert replaced == {"audio": False, "silence": True}
  mean = found.summary["metrics"]["accuracy"]
  assert (mean["mean"], mean["answered"]) == (pytest.approx(2 / 3), 1.0)
  assert [*found.summary["groups"]["task"]] == ["pitch", "digits"]
  silence = found.summary["conditions"]["silence"]
  assert silence["drop"]["mean"] == pytest.approx(1 / 3)
  drops = silence["group_drops"]["task"]
  assert (drops["pitch"]["mean"], drops["digits"]["mean"]) == (0.5, 0.0)
  assert found.summary["chance"] == 0.5


def test_the_metric_of_the_table_is_compared_where_items_have_it(tmp_path):
  apr = {"APR": folders.mean([1, 0]), "ARS": folders.mean([1, 0.5])}
  items = [
    item("a", 0.75, metrics={"APR": 1.0, "ARS": 0.75}),
    item("b", 0.5, metrics={"APR": 0.0, "ARS": 0.5}),
    item("c", None, metrics={"APR": None, "ARS": None}),
  ]
  folders.write(tmp_path, "audio_mc", items, metrics=apr)
  found = results.benchmark(tmp_path, "audio_mc")
  assert found.scores() == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_summaries_of_another_form_are_named_and_left_out(tmp_path):
  folders.write(tmp_path, "mmau", [item("a", 1)])
  (tmp_path / "reward_model.json").write_text('{"comparisons": 3}')
  (tmp_path / "reward_model.items.jsonl").write_text("{}")
  found = results.folder(tmp_path)
  assert [*found.results] == ["mmau"]
  assert "reward_model.md" in found.unshown["reward_model"]
  with pytest.raises(ValueError, match="'reward_model' has another form"):
    results.benchmark(tmp_path, "reward_model")


def test_folders_without_results_say_what_they_hold(tmp_path):
  with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
    results.folder(tmp_path / "nowhere")
  (tmp_path / "notes.json").write_text("{}")
  with pytest.raises(ValueError, match=r"holds no results .*\['notes.json'\]"):
    results.folder(tmp_path)
  folders.write(tmp_path, "mmau", [item("a", 1)])
  with pytest.raises(ValueError, match=r"no results of 'mmsu'; .*\['mmau'\]"):
    results.benchmark(tmp_path, "mmsu")


def _edited(folder, **given):
  summary = folders.write(folder, "mmau", [item("a", 1)])
  (folder / "mmau.json").write_text(json.dumps(summary | given))


def test_all_that_is_wrong_is_told_at_once(tmp_path):
  items = [item("a", 1), item("a", 0), item("b", 2)]
  low = folders.mean([1, 0]) | {"low": None}
  folders.write(
    tmp_path,
    "mmau",
    items,
    n="3",
    metrics={},
    groups={"task": {"sound": folders.entry(items[:1]) | {"n_failed": None}}},
    conditions={"flat": {"metrics": {"accuracy": low}, "drop": 5}},
  )
  with pytest.raises(ValueError, match="neither 0 to 1") as told:
    results.benchmark(tmp_path, "mmau")
  lines = str(told.value).splitlines()
  assert [line.removeprefix(f"{tmp_path}/") for line in lines] == [
    "mmau.json: ['n'] are no counts",
    "mmau.json: metrics is {} where {name: mean, …} is wanted",
    "mmau.json: groups.task.sound: ['n_failed'] are no counts",
    "mmau.json: conditions.flat: metrics.accuracy: {'low': None} are no finite numbers",
    "mmau.json: conditions.flat: drop: 5 where mean, low and high are wanted",
    "mmau.items.jsonl:1: ('a', 'audio', 0, None) is there twice",
    "mmau.items.jsonl:2: ('a', 'audio', 0, None) is there twice",
    "mmau.items.jsonl:3: score 2 is neither 0 to 1 nor null",
  ]


def test_missing_fields_are_named(tmp_path):
  _edited(tmp_path, checkpoint=None)
  with pytest.raises(ValueError, match=r"mmau.json: lacks \['checkpoint'\]; its keys"):
    results.benchmark(tmp_path, "mmau")
  row = item("a", 1)
  del row["condition"]
  folders.write(tmp_path, "mmau", [item("a", 1)])
  (tmp_path / "mmau.items.jsonl").write_text(json.dumps(row))
  with pytest.raises(ValueError, match=r"items.jsonl:1: lacks \['condition'\]"):
    results.benchmark(tmp_path, "mmau")
  (tmp_path / "mmau.json").write_text("[1")
  with pytest.raises(ValueError, match=r"mmau.json: not JSON"):
    results.benchmark(tmp_path, "mmau")
