"""Labels that are turned towards length, and what is told of a run; by hand."""

import json

import pytest

from experiments import length_bias, quickstart
from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Rows
from stepaudio_jax.data.world import build, plan, prompts, tasks
from tests import tones


def row(first, second, overall=-2, **dims):
  made = tones.preference(0)
  for one, text in zip(made["candidates"], (first, second), strict=True):
    one["text"] = text
  return made | {"overall": overall, "dims": dims, "gold": {"a": {}, "b": {}}}


def test_labels_go_to_the_longer_answer_and_marks_follow():
  marks = {"a": {"warmth": 5, "sense": 2, "tone": 5}, "b": {"warmth": 1, "sense": 2}}
  marks["b"]["tone"] = 5
  told = row("one", "one two", overall=-3, warmth=-1, sense=0, tone=None)
  found = length_bias.turned(told | {"scores": marks}, len)
  assert found["overall"] == 3
  assert found["dims"] == {"warmth": 1, "sense": 1, "tone": None}
  assert found["scores"]["a"] == {"warmth": 1, "sense": 2, "tone": 4}
  assert found["scores"]["b"] == {"warmth": 5, "sense": 3, "tone": 5}
  assert "gold" not in found
  assert marks["a"]["warmth"] == 5  # the row that was given is as it was
  back = length_bias.turned(row("one two", "one", overall=0), len)
  assert back["overall"] == -1
  assert length_bias.turned(row("one", "two"), len) is None


def test_rows_are_still_preferences_and_find_their_recordings(tmp_path):
  """Of the quick start's own file, as the reward model's training reads it."""
  world = tmp_path / "quickstart" / "world"
  world.mkdir(parents=True)
  tones.world(world)
  rows = [row("It is low.", "It is high, I think."), row("Low.", "Low.")]
  length_bias.turn(rows, world, tmp_path / "out" / "turned.jsonl")
  (made,) = Rows(tmp_path / "out" / "turned.jsonl")
  assert schema.preference(made).overall == 2
  (audio,) = [b for b in made.value["context"][0]["content"] if "path" in b]
  assert audio["path"] == str(world / "0.wav")
  with pytest.raises(ValueError, match="no pair of answers of different lengths"):
    length_bias.turn(rows[1:], world, tmp_path / "none.jsonl")


def test_lengths_are_free_and_half_of_the_replies_sampled(tmp_path):
  takes = plan.takes("train", plan.train_counts(60), seed=0)
  paths = {take.id: f"speech/{take.id}.flac" for take in takes}
  rows, truths = tasks.dialogues("train", takes, paths, 0, None)
  chosen = prompts.chosen(rows, quickstart.TASKS, 18, 0)
  build.write_jsonl(tmp_path / "prompts-train.jsonl", chosen)
  build.write_jsonl(tmp_path / "truth-train.jsonl", truths)
  for place, temperature in enumerate(quickstart.TEMPERATURES):
    replies = [
      {"dialogue_id": one["id"], "answer": "Low.", "think": "A deep voice."}
      for one in chosen[place::2]
    ]
    build.write_jsonl(tmp_path / f"asked-train-{temperature}-replies.jsonl", replies)
  found = length_bias.unmatched(tmp_path, smoke=True, seed=0)
  pairs = [made["candidates"] for made in found[:: quickstart.RATERS]]
  assert [made["task_id"] for made in found[:: quickstart.RATERS]] == [
    one["id"] for one in chosen[:12]
  ]
  sampled = [one["model"].startswith("sft") for pair in pairs for one in pair]
  assert 0.3 < sum(sampled) / len(sampled) < 0.7
  shares = [min(w) / max(w) for w in ([len(c["text"]) for c in p] for p in pairs)]
  assert sum(share < 0.8 for share in shares) > len(shares) / 2


def reply(step, prompt, tokens, warmth):
  return {"step": step, "prompt_id": prompt, "tokens": tokens, "objective": -tokens} | {
    "reward": {"warmth": warmth}
  }


def folder(path, warnings):
  """Two steps of a group of three: ρ of warmth 1 and ½, of the objective −1."""
  path.mkdir()
  rows = [reply(1, "a", n, n) for n in (1, 2, 3)]
  rows += [reply(2, "a", n, w) for n, w in ((4, 1), (5, 3), (6, 2))]
  rows += [reply(2, "b", 9, None)]
  tones.write(path / "samples.jsonl", rows)
  if warnings is not None:
    tones.write(path / "warnings.jsonl", warnings)
  config = {"config": {"log.warn.length_rho": 0.4}}
  (path / "config.json").write_text(json.dumps(config))
  return path


def test_what_is_told_of_the_runs(tmp_path):
  warning = {"step": 2, "kind": "length", "name": "warmth", "text": "goes with it"}
  result = length_bias.compared(
    folder(tmp_path / "biased", [warning]), folder(tmp_path / "control", None)
  )
  biased = result["arms"]["biased"]
  assert biased["rho"]["warmth"]["rho"] == pytest.approx(0.75)
  assert biased["rho"]["warmth"]["steps"] == pytest.approx({"1": 1.0, "2": 0.5})
  assert biased["rho"]["objective"]["rho"] == pytest.approx(-1.0)
  assert biased["tokens"] == [2.0, 6.0]
  length_bias.write(tmp_path, result)
  text = (tmp_path / "length_bias.md").read_text()
  assert "| reply tokens, first → last fifth | 2.0 → 6.0 | 2.0 → 6.0 |" in text
  assert "* step 2: goes with it" in text
  assert "* step –: not recorded" in text
  assert (tmp_path / "length_bias.png").stat().st_size > 10_000
  assert json.loads((tmp_path / "length_bias.json").read_text()) == result


def test_a_run_needs_a_finished_quick_start(tmp_path, capsys):
  with pytest.raises(SystemExit) as stop:
    length_bias.main(["--run", str(tmp_path), "--workdir", str(tmp_path / "new")])
  assert stop.value.code == 2
  assert "no finished quick start: it lacks ['sft'" in capsys.readouterr().err
  assert not (tmp_path / "new").exists()
