"""Proxy and gold of exams by hand, and the limit of time."""

import json
import signal
import threading
import time

import pytest

from experiments import overoptimisation
from stepaudio_jax import train_rl
from stepaudio_jax.data.world import gold
from tests import tones

WEIGHTS = {"correctness": 2.0, "coherence": 1.0, "naturalness": 0.0}


def test_gold_is_weighed_as_the_proxy_is(monkeypatch):
  marks = dict.fromkeys(gold.DIMENSIONS, 3.0) | {"correctness": 5.0, "coherence": 2.0}
  monkeypatch.setattr(gold, "score", lambda truth, text: marks)
  rows = [{"dialogue_id": "a", "text": "x", "objective": 6.0}]
  rows += [rows[0] | {"objective": None}]
  first, second = overoptimisation.scored(rows, {"a": {}}, WEIGHTS)
  assert first["gold_mean"] == pytest.approx((2 * 5 + 2) / 3)
  assert first["proxy"] == pytest.approx(6 / 3)
  assert second["proxy"] is None
  assert second["gold_mean"] == first["gold_mean"]
  with pytest.raises(ValueError, match=r"no truth of \['a'\]"):
    overoptimisation.scored(rows, {}, WEIGHTS)


def reply(step, prompt, proxy, gold_mean, kl):
  marks = dict.fromkeys(gold.DIMENSIONS, gold_mean)
  known = {"tokens": 8, "entropy": 0.5, "kl": kl, "gold": marks}
  return known | {
    "step": step,
    "prompt_id": prompt,
    "proxy": proxy,
    "gold_mean": gold_mean,
  }


def exams():
  """Proxy 0, 1, 3; gold 3, 4, 2, of two prompts that move alike; KL of 0, ½, 2."""
  rows = []
  for step, proxy, mark, kl in ((0, 0, 3, 0), (10, 1, 4, 0.5), (20, 3, 2, 2)):
    rows += [reply(step, "a", proxy, mark, kl), reply(step, "b", proxy, mark, kl)]
    rows += [reply(step, "b", None, mark, kl)]
  return rows


def test_a_fall_of_gold_while_the_proxy_rises_by_hand():
  result = overoptimisation.summary(exams())
  assert [point["step"] for point in result["points"]] == [0, 10, 20]
  # A whole reply's: 8 tokens of ½ and of 2 nats.
  assert [p["root_kl"] for p in result["points"]] == pytest.approx([0, 2, 4])
  assert [p["proxy"]["mean"] for p in result["points"]] == [0, 1, 3]
  assert [p["gold"]["mean"] for p in result["points"]] == [3, 4, 2]
  assert result["points"][0]["masked"] == pytest.approx(1 / 3)
  assert result["best_step"] == 10
  assert result["fall"] == {"mean": -2.0, "low": -2.0, "high": -2.0, "n": 2}
  assert result["gain"]["mean"] == 3.0


def test_table_and_figure(tmp_path):
  result = overoptimisation.summary(exams())
  overoptimisation.write(tmp_path, result)
  text = (tmp_path / "overoptimisation.md").read_text()
  assert "| 20 | 4.00 | 3.00 [3.00, 3.00] | 2.00 [2.00, 2.00] | 8.0 | 0.500 |" in text
  assert "highest at step 10; from there to step 20: -2.00 [-2.00, -2.00]" in text
  assert json.loads((tmp_path / "overoptimisation.json").read_text()) == result
  assert (tmp_path / "overoptimisation.png").stat().st_size > 10_000


def test_nothing_known_of_the_proxy_is_told_as_nothing(tmp_path):
  rows = [row | {"proxy": None} for row in exams()]
  result = overoptimisation.summary(rows)
  overoptimisation.write(tmp_path, result)
  assert result["gain"] is None
  assert "| 0 | 0.00 | – | 3.00" in (tmp_path / "overoptimisation.md").read_text()


def stub(folder, entered):
  """A run that waits for its SIGTERM, and saves and leaves on it."""

  def run(c, workdir):
    entered.append(workdir)
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    assert told.wait(60)
    signal.signal(signal.SIGTERM, before)
    folder.mkdir(parents=True, exist_ok=True)
    tones.write(folder / "metrics.jsonl", [{"step": 3}])
    raise SystemExit(0)

  return run


def test_the_time_is_over_and_stays_over(tmp_path, monkeypatch):
  entered, folder = [], tmp_path / "rlhf"
  monkeypatch.setattr(train_rl, "run", stub(folder, entered))
  for _ in range(2):  # the second start has no time left
    overoptimisation.train(None, folder, minutes=0.001)
  assert entered == [folder]
  spent = json.loads((tmp_path / "minutes.json").read_text())["minutes"]
  assert 0.001 <= spent < 1


def test_the_time_may_be_over_before_the_run_listens(tmp_path, monkeypatch):
  before = signal.getsignal(signal.SIGTERM)
  monkeypatch.setattr(train_rl, "run", lambda c, workdir: time.sleep(60))
  start = time.monotonic()
  overoptimisation.train(None, tmp_path / "rlhf", minutes=0.001)
  assert time.monotonic() - start < 50  # it was woken
  assert signal.getsignal(signal.SIGTERM) == before


def test_another_end_of_the_run_is_not_taken_for_the_time(tmp_path, monkeypatch):
  def run(c, workdir):
    raise SystemExit(0)  # a SIGTERM of somebody else

  monkeypatch.setattr(train_rl, "run", run)
  with pytest.raises(SystemExit):
    overoptimisation.train(None, tmp_path / "rlhf", minutes=60)


def test_numbers_that_cannot_be_are_refused(tmp_path, capsys):
  for name in ("sft", "rm", "world"):
    (tmp_path / name).mkdir()
  for name in ("truth-heldout", "prompts-train"):
    (tmp_path / "world" / f"{name}.jsonl").write_text("")
  for wrong in (["--steps=0"], ["--every=-1"], ["--minutes=0"]):
    with pytest.raises(SystemExit) as stop:
      overoptimisation.main(["--run", str(tmp_path), "--workdir", "x", *wrong])
    assert stop.value.code == 2
    assert f"{wrong[0][2:].split('=')[0]}=" in capsys.readouterr().err
