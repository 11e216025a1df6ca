"""The command from a checkpoint to result files, with a model of random weights."""

import dataclasses
import json
import shutil
import types

import jax
import pytest
from etils import epath

from stepaudio_jax import evaluate
from stepaudio_jax.evals.parts import suite
from tests.evals import worlds

COUNTS = {"n", "n_failed", "n_unparsed", "correct", "accuracy", "low", "high"}
COUNTS |= {"accuracy_answered"}
MEAN = {"mean", "low", "high", "n"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A checkpoint in run/ and a world in world/."""
  folder = tmp_path_factory.mktemp("evaluate")
  worlds.write_checkpoint(folder / "run")
  worlds.write_world(folder / "world")
  return folder


@pytest.fixture(scope="module")
def summary(folder):
  return evaluate.run(
    checkpoint=folder / "run",
    benchmarks=["world"],
    data=folder / "world",
    out=folder / "out",
    batch_size=2,
    max_new_tokens=6,
  )["world"]


def test_json_has_exactly_the_keys_that_reports_read(summary, folder):
  written = json.loads((folder / "out" / "world.json").read_text())
  assert written == summary
  keys = ["benchmark", "checkpoint", "settings", "simulated", "tasks", "overall"]
  assert list(written) == [*keys, "dimensions"]
  assert (written["benchmark"], written["simulated"]) == ("world", True)
  assert written["checkpoint"] == str(folder / "run")
  assert list(written["tasks"]) == ["pitch", "digits"]
  for entry in [*written["tasks"].values(), written["overall"]]:
    assert set(entry) == COUNTS | {"chance", "silence", "beats_silence"}
    assert set(entry["silence"]) == COUNTS
  assert len(written["dimensions"]) == 6
  for entry in written["dimensions"].values():
    assert set(entry) == MEAN | {"silence"}
    assert set(entry["silence"]) == MEAN
  settings = written["settings"]
  assert (settings["step"], settings["temperature"]) == (worlds.STEP, 0.0)
  assert settings["max_new_tokens"] == 6


def test_one_item_of_each_dialogue_and_condition(summary, folder):
  lines = (folder / "out" / "world.items.jsonl").read_text().splitlines()
  items = [json.loads(line) for line in lines]
  keys = {"id", "task", "condition", "messages", "answer", "think", "reply", "raw"}
  keys |= {"correct", "scores", "truncated", "failed"}
  assert all(set(item) == keys for item in items)
  names = {(item["id"], item["condition"]) for item in items}
  assert len(names) == len(items) == 2 * summary["overall"]["n"] == 12
  # Six tokens never end a reply here: the model babbles, and says so.
  said = [item for item in items if not item["failed"]]
  assert all(item["truncated"] and item["correct"] is None for item in said)
  assert summary["overall"]["n_unparsed"] == len(said) // 2 == 5
  heard = {item["id"]: item["raw"] for item in said if item["condition"] == "audio"}
  silent = {item["id"]: item["raw"] for item in said if item["condition"] == "silence"}
  assert heard != silent


def test_table_and_plot_are_there_and_nothing_half_written(summary, folder):
  out = folder / "out"
  names = {path.name for path in out.iterdir()}
  assert names == {f"world.{e}" for e in ("json", "items.jsonl", "md", "png")} | {
    "cache"
  }
  page = (out / "world.md").read_text()
  assert "| pitch | 5 | 0.0 % [0.0, 43.4] | – | 4 | 1 |" in page
  assert "simulated" in page
  assert (out / "world.png").read_bytes().startswith(b"\x89PNG")


def test_batches_of_another_size_give_the_same_replies(summary, folder, capsys):
  evaluate.main(
    [
      *("--checkpoint", str(folder / "run" / "checkpoints" / str(worlds.STEP))),
      *("--benchmark", "world", "--data", str(folder / "world")),
      *("--cache", str(folder / "out" / "cache")),
      *("--batch_size", "3", "--max_new_tokens", "6", "--limit", "4"),
    ]
  )
  assert "| pitch | 4 |" in capsys.readouterr().out
  out = folder / "run" / "evaluation" / str(worlds.STEP)  # where results lie unasked
  items, all_items = (
    {(item["id"], item["condition"]): item for item in map(json.loads, lines)}
    for lines in (
      (path / "world.items.jsonl").read_text().splitlines()
      for path in (out, folder / "out")
    )
  )
  assert len(items) == 8
  assert items == {name: all_items[name] for name in items}


def test_unknown_names_are_answered_with_the_choices(folder, capsys):
  with pytest.raises(ValueError, match=r"unknown benchmark 'wrld'.*'world'"):
    evaluate.run(checkpoint=folder / "run", benchmarks=["wrld"], data=folder)
  known = ["--checkpoint", "x", "--data", "y", "--benchmark"]
  with pytest.raises(SystemExit) as stop:
    evaluate.main([*known, "wrld"])
  assert stop.value.code == 2
  error = capsys.readouterr().err
  assert "wrld" in error
  assert "world" in error


def test_errors_name_what_is_not_there(folder):
  with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*/nowhere"):
    evaluate.run(
      checkpoint=folder / "nowhere", benchmarks=["world"], data=folder / "world"
    )
  with pytest.raises(ValueError, match=r"no file .*/run/dialogues-heldout.jsonl"):
    evaluate.run(checkpoint=folder / "run", benchmarks=["world"], data=folder / "run")
  with pytest.raises(
    ValueError, match=r"max_new_tokens=512 leaves no room .*; give fewer"
  ):
    evaluate.run(
      checkpoint=folder / "run",
      benchmarks=["world"],
      data=folder / "world",
      out=folder / "out",
      max_new_tokens=512,
    )


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"limit": 0}, "limit=0 must be at least 1"),
    ({"temperature": -1.0}, "cannot sample with temperature=-1.0"),
    ({"batch_size": 0}, "batch_size=0 must be at least 1"),
    ({"data": "nowhere"}, "there is no folder .*/nowhere"),
  ],
)
def test_options_are_checked_before_anything_is_read(folder, wrong, message):
  with pytest.raises(ValueError, match=message):
    evaluate.run(
      **{"checkpoint": "no such", "benchmarks": ["world"], "data": folder} | wrong
    )


@pytest.fixture
def known(monkeypatch):
  """What decides the replies of a benchmark, run by run; nothing is asked."""
  told = []

  def asked_nothing(*_, known, **__):
    told.append(known)
    return {"settings": {}}, []

  monkeypatch.setattr(suite, "evaluate", asked_nothing)
  monkeypatch.setattr(evaluate, "_loaded", lambda *_: None)
  monkeypatch.setattr(evaluate, "_write", lambda *_: None)
  return told


def test_another_checkpoint_in_the_same_place_is_another(tmp_path, known, monkeypatch):
  run = worlds.write_checkpoint(tmp_path / "run")
  arguments = {"benchmarks": ["mmau"], "data": tmp_path, "out": tmp_path / "out"}
  monkeypatch.chdir(tmp_path)
  for checkpoint in (run, run, "run"):
    evaluate.run(checkpoint=checkpoint, **arguments)
  moved = shutil.move(tmp_path / "run", tmp_path / "old")
  monkeypatch.setattr(worlds, "model", lambda: worlds_model(seed=1))
  evaluate.run(checkpoint=worlds.write_checkpoint(tmp_path / "run"), **arguments)
  evaluate.run(checkpoint=moved, **arguments)
  first, again, relative, other, old = known
  assert first == again == relative
  assert other["checkpoint"] == first["checkpoint"]
  assert other["seal"] != first["seal"] == old["seal"]
  assert first["seal"]


def worlds_model(seed):
  made = _MODEL()
  bigger = jax.tree.map(lambda leaf: leaf * (1 + seed), made.params["adaptor"])
  return dataclasses.replace(made, params={**made.params, "adaptor": bigger})


_MODEL = worlds.model


def test_the_faults_of_all_folders_are_told_before_anything(tmp_path, known):
  worlds.write_checkpoint(tmp_path / "run")
  for name, row in (("mmau", '[{"id": "a"}]'), ("mmar", '[{"id": "b"}]')):
    (tmp_path / name).mkdir()
    (tmp_path / name / "items.json").write_text(row)
  with pytest.raises(ValueError, match=r"(?s)items.json.*'a'.*items.json.*'b'"):
    evaluate.run(
      checkpoint=tmp_path / "run", benchmarks=["mmau", "mmar"], data=tmp_path
    )
  assert not known


def test_results_are_of_one_run_or_none(tmp_path, monkeypatch):
  summary = {"benchmark": "quiz", "checkpoint": "x", "settings": {}}
  monkeypatch.setattr(evaluate, "page", lambda summary: "page")
  monkeypatch.setattr(
    evaluate, "_shown", lambda module: types.SimpleNamespace(plot=Plot)
  )
  out = epath.Path(tmp_path)
  evaluate._write(out, "quiz", None, summary, [{"id": 1}])
  names = ["quiz.items.jsonl", "quiz.json", "quiz.md", "quiz.png"]
  assert sorted(path.name for path in tmp_path.iterdir()) == names
  (tmp_path / "quiz.md").unlink()
  (tmp_path / "quiz.md").mkdir()  # the second file cannot be written
  with pytest.raises(OSError, match=r"quiz\.md"):
    evaluate._write(out, "quiz", None, summary, [{"id": 2}])
  assert not (tmp_path / "quiz.json").exists()


class Plot:
  def __init__(self, summary):
    pass

  def savefig(self, file, **_):
    file.write(b"png")


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"judge": "http://h/v1#m"}, r"judge='http://h/v1#m' has nothing to do"),
    ({"judge_key": "KEY"}, "judge_key='KEY' is an endpoint's; judge=None"),
    ({"judge": "rule", "judge_key": "KEY"}, "judge_key='KEY'.*judge='rule'"),
  ],
)
def test_a_judge_or_key_of_no_use_is_an_error(folder, given, message, known):
  with pytest.raises(ValueError, match=message):
    evaluate.run(
      checkpoint=folder / "run", benchmarks=["mmau", "world"], data=folder, **given
    )


def test_the_command_tells_an_error_in_one_line(folder, capsys):
  with pytest.raises(SystemExit) as stop:
    evaluate.main(["--checkpoint=x", "--benchmark=world", f"--data={folder}"])
  assert stop.value.code == 2
  assert capsys.readouterr().err.startswith("evaluate: no checkpoint in x ")


def test_every_benchmark_is_whole_and_shared_parts_are_none():
  names = evaluate.benchmark_names()
  assert "world" in names
  assert "parts" not in names
  for name in names:
    module = evaluate.load_benchmark(name)
    asked = ("DEFAULTS", "COLUMN", "JUDGES", "read", "score")
    own = ("DEFAULTS", "Options", "load", "evaluate", "page", "plot")
    for part in asked if hasattr(module, "read") else own:
      assert hasattr(module, part), f"{name} has no {part}"
