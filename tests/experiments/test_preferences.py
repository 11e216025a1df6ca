"""More held-out pairs of a quick start's world; the model's replies are made up."""

import json

import pytest

from experiments import preferences
from stepaudio_jax import generate
from stepaudio_jax.data import jsonl, schema
from stepaudio_jax.data.world import build, plan, prompts, raters, tasks

TASKS = ("pitch", "rate", "emotion")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """What of a quick start is read; nothing is spoken."""
  folder = tmp_path_factory.mktemp("run")
  takes = plan.takes("heldout", plan.heldout_counts(6), seed=0)
  paths = {take.id: f"speech/{take.id}.flac" for take in takes}
  rows, truths = tasks.dialogues("heldout", takes, paths, 0, per_task=6)
  (folder / "world").mkdir()
  chosen = prompts.chosen(rows, TASKS, None, 0)
  build.write_jsonl(folder / "world" / "prompts-heldout.jsonl", chosen)
  build.write_jsonl(folder / "world" / "truth-heldout.jsonl", truths)
  (folder / "stages.json").write_text(json.dumps({"seed": 3}))
  return folder


@pytest.fixture
def asked(monkeypatch):
  """Temperatures that were asked for, of a model that always says the same."""
  calls = []

  def rollouts(*, jsonl, out, temperature, samples, **_):
    calls.append((temperature, samples))
    rows = [
      {"dialogue_id": row["id"], "answer": said, "think": "A voice."}
      for row in build.read_jsonl(jsonl)
      for said in ("I think it is low.", None)[:samples]
    ]
    build.write_jsonl(out, rows)

  monkeypatch.setattr(generate, "rollouts", rollouts)
  return calls


def test_pairs_are_different_and_as_many_as_asked_for(source, asked, tmp_path):
  path = preferences.run(source, tmp_path / "out", pairs=40)
  rows = [schema.preference(row) for row in jsonl.Rows(path)]
  assert len(rows) == 40 * 6
  said = {
    (row.task_id, *sorted((c.text, c.think or "") for c in row.candidates))
    for row in rows
  }
  assert len(said) == 40
  assert {row.rater for row in rows} == {f"sim-{k:02d}" for k in range(6)}
  # 18 dialogues: 3 laps, so 2 replies at each of two temperatures.
  assert asked == [(0.7, 2), (1.1, 2)]
  sampled = [c.model.startswith("sft") for row in rows[::6] for c in row.candidates]
  assert 0.2 < sum(sampled) / len(sampled) < 0.6
  panel = raters.raters(6, seed=3)  # the very raters of the run
  assert [row.rater for row in rows[:6]] == [one.id for one in panel]
  marks = [rows[0].gold[cid] for cid in "ab"]
  name = rows[0].id.removesuffix("-r0")
  labels = panel[0].judge(f"{name}/{rows[0].task_id}", *marks)
  assert (rows[0].overall, rows[0].dims) == (labels["overall"], labels["dims"])


def test_sound_is_found_from_where_the_file_lies(source, asked, tmp_path):
  path = preferences.run(source, tmp_path / "deep" / "out", pairs=3)
  speech = (source / "world" / "speech").resolve()
  for row in jsonl.Rows(path):
    (block,) = [
      b for m in row.value["context"] for b in m["content"] if b["type"] == "audio"
    ][-1:]
    assert not block["path"].startswith("/")
    assert (path.parent / block["path"]).resolve().parent == speech


def test_a_second_start_draws_nothing_again(source, asked, tmp_path):
  first = preferences.run(source, tmp_path / "out", pairs=10).read_bytes()
  (tmp_path / "out" / "preferences-heldout.jsonl").unlink()  # killed before it
  again = preferences.run(source, tmp_path / "out", pairs=10).read_bytes()
  assert first == again
  assert len(asked) == 2
  with pytest.raises(
    ValueError, match=r"holds preferences with pairs=10 \(asked for: 11"
  ):
    preferences.run(source, tmp_path / "out", pairs=11)


def test_too_many_pairs_are_an_error(source, asked, tmp_path, monkeypatch):
  def rows(dialogues, truths, panel, *, pairs, **_):
    return [
      {"task_id": str(k % 4), "candidates": [{"text": str(k % 3)}, {"text": "x"}]}
      for k in range(pairs)
      for _ in panel
    ]

  monkeypatch.setattr(preferences.preferences, "rows", rows)
  # 4 dialogues with 3 pairs each
  assert len(preferences.different(12, [], [], ["r0", "r1"])) == 24
  with pytest.raises(
    ValueError, match="pairs=13: these 18 dialogues give 12 different"
  ):
    preferences.run(source, tmp_path / "out", pairs=13)
  with pytest.raises(ValueError, match="pairs=0 must be at least 1"):
    preferences.run(source, tmp_path / "zero", pairs=0)
