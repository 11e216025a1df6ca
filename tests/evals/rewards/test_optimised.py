"""Proxy and gold of a run's exams, by hand."""

import json

import pytest
from etils import epath

from stepaudio_jax.data.world import gold, raters
from stepaudio_jax.evals.rewards import optimised, plots, sections

TRUTH = {
  "id": "d0",
  "task": "pitch",
  "answer": "low",
  "choices": ["low", "middle", "high"],
  "instruction": None,
  "emotion": "neutral",
  "facts": [],
}
RIGHT, WRONG = (
  "A deep voice.\n</think>\nIt is low.",
  "A deep voice.\n</think>\nIt is high.",
)


def row(step, prompt, text, objective, kl=0.0):
  return {
    "step": step,
    "prompt_id": prompt,
    "dialogue_id": "d0",
    "text": text,
    "objective": objective,
    "kl": kl,
    "tokens": 10.0,
  }


ROWS = [
  row(0, "a", RIGHT, 1.0),
  row(0, "b", RIGHT, 2.0),
  row(9, "a", WRONG, 5.0, 0.3),
  row(9, "b", WRONG, None, 0.6),  # no reward
]


@pytest.fixture
def folder(tmp_path):
  lines = [json.dumps(one) + "\n" for one in ROWS]
  (tmp_path / "heldout.jsonl").write_text("".join(lines))
  (tmp_path / "truth-heldout.jsonl").write_text(json.dumps(TRUTH) + "\n")
  return tmp_path


def test_an_over_optimised_proxy_by_hand(folder):
  found = optimised.curves([str(folder)], epath.Path(folder))
  first, last = found[str(folder)]
  assert [point["step"] for point in (first, last)] == [0, 9]
  assert (first["proxy"]["value"], last["proxy"]["value"]) == (1.5, 5.0)
  # Two replies of 10 tokens: 3 and 6 nats.
  assert (first["root_kl"], last["root_kl"]) == (0.0, pytest.approx(4.5**0.5))
  marks = [gold.score(TRUTH, text) for text in (RIGHT, WRONG)]
  right, wrong = (
    sum(raters.WEIGHTS[name] * one[name] for name in one) / 6.5 for one in marks
  )
  assert first["gold"]["value"] == pytest.approx(right)
  assert last["gold"]["value"] == pytest.approx(wrong)
  assert wrong < right - 1
  result = {"optimised": found}
  _, table = sections._optimised(result)
  assert "| 9 | 2 | 2.12 | 5.00 [5.00, 5.00] |" in table
  assert len(plots.optimised(result).axes) == 2


def test_of_played_dialogues_the_last_turn_counts_and_only_what_was_drawn(folder):
  last = row(0, "a", RIGHT, 1.0, 0.5) | {"turn": 3, "failed": False}
  rows = [
    row(0, "a", "", 9.0, 9.0) | {"turn": 2, "failed": False},
    last | {"forced": [4, 5]},  # 8 of its 10 tokens, of .5 nats each
    last | {"text": "", "objective": None, "failed": True},
  ]
  lines = "".join(json.dumps(one) + "\n" for one in rows)
  (folder / "heldout.jsonl").write_text(lines)
  (point,) = optimised.curves([str(folder)], epath.Path(folder))[str(folder)]
  assert (point["replies"], point["proxy"]["value"]) == (1, 1.0)
  assert point["root_kl"] == pytest.approx(2.0)
  right = gold.score(TRUTH, RIGHT)
  mean = sum(raters.WEIGHTS[name] * right[name] for name in right) / 6.5
  assert point["gold"]["value"] == pytest.approx(mean)


def test_what_is_lacking_is_named(folder):
  with pytest.raises(ValueError, match="dialogue 'd0' is none of the 0 with truths"):
    optimised.points(ROWS, {})
  with pytest.raises(ValueError, match=r"there is no file .*nowhere/heldout.jsonl"):
    optimised.curves([str(folder / "nowhere")], epath.Path(folder))
  (folder / "heldout.jsonl").write_text(json.dumps({"step": 1}) + "\n")
  with pytest.raises(ValueError, match=r"jsonl:1: lacks \['prompt_id', 'dialogue_id'"):
    optimised.curves([str(folder)], epath.Path(folder))
  assert optimised.curves([], epath.Path("nowhere")) == {}
