"""What the longer reward model learns from and is asked about; nothing is trained."""

import json
from pathlib import Path

import jax
import pytest

from experiments import preferences, reward_dimensions
from stepaudio_jax import evaluate, train
from stepaudio_jax.data.world import build, plan


@pytest.fixture
def source(tmp_path):
  folder = tmp_path / "quickstart"
  for name in ("sft", "rm", "world"):
    (folder / name).mkdir(parents=True)
  (folder / "world" / "truth-heldout.jsonl").write_text("")
  (folder / "stages.json").write_text(json.dumps({"seed": 0}))
  return folder


@pytest.fixture
def calls(monkeypatch):
  """What the stages ask for: (kind, arguments)."""
  made = []
  monkeypatch.setattr(jax.config, "update", lambda *_: None)  # no cache of programs
  monkeypatch.setattr(build.speech, "speak_shards", lambda *_, **__: None)
  monkeypatch.setattr(
    preferences, "run", lambda source, out, **known: made.append((out.name, known))
  )
  monkeypatch.setattr(train, "run", lambda c, workdir: made.append(("train", c)))
  monkeypatch.setattr(evaluate, "run", lambda **known: made.append(("ask", known)))
  return made


def test_other_speech_is_learnt_from_and_the_quick_starts_asked_about(
  source, calls, tmp_path
):
  out = tmp_path / "out"
  options = {"clips": 80, "steps": 7, "lr": 1e-3}
  reward_dimensions.run(source, out, **options)
  names = [name for name, _ in calls]
  assert names == ["train", "heldout", "train", "ask", "ask"]
  (_, learnt), (_, held), (_, c), (_, long), (_, short) = calls
  prompts = build.read_jsonl(out / "world" / "prompts-train.jsonl")
  assert learnt == {"pairs": len(prompts), "world": out / "world", "split": "train"}
  assert held == {"pairs": 2400, "world": source / "world", "split": "heldout"}
  assert (c.total_steps, c.optim.lr) == (7, 1e-3)
  assert Path(c.init) == source / "sft"
  assert Path(c.data.options.preference.path).parent == out / "train"
  assert [one["checkpoint"] for one in (long, short)] == [out / "rm", source / "rm"]
  assert long["data"] == short["data"] == out / "heldout"
  reward_dimensions.run(source, out, **options)  # all is done
  assert len(calls) == 5
  with pytest.raises(SystemExit, match="steps=7 "):
    reward_dimensions.run(source, out, **options | {"steps": 8})
  with pytest.raises(ValueError, match="no finished quick start"):
    reward_dimensions.run(tmp_path / "none", out, **options)


def test_no_clip_that_is_learnt_from_is_held_out():
  """Another seed's train split: digit strings of the held-out split stay unheard."""
  heldout = plan.takes("heldout", plan.heldout_counts(20), seed=0)
  learnt = plan.takes("train", plan.train_counts(300), seed=reward_dimensions.SEED)
  digits = [
    {take.fact("digits") for take in part} - {None} for part in (heldout, learnt)
  ]
  assert all(digits)
  assert not digits[0] & digits[1]
