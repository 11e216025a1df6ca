"""Sampled replies as comparisons."""

import json

import pytest

from stepaudio_jax.evals.rewards import candidates
from stepaudio_jax.evals.rewards.candidates import Candidates

HUMAN = {"role": "human", "content": [{"type": "text", "text": "Pitch?"}]}
SAID = {"role": "assistant", "content": [{"type": "text", "text": "the reference"}]}


def row(prompt, answer, *, step=3, sample=0):
  return {
    "prompt_id": f"{prompt}#0",
    "dialogue_id": prompt,
    "sample": sample,
    "step": step,
    "text": f"A tone.\n</think>\n{answer}",
    "think": "A tone.",
    "answer": answer,
  }


def written(folder, name, rows):
  path = folder / name
  path.write_text("".join(json.dumps(one) + "\n" for one in rows))
  return path


def talks(folder, names="pq"):
  rows = [{"id": name, "messages": [HUMAN, SAID]} for name in names]
  return written(folder, "dialogues-heldout.jsonl", rows)


def test_candidates_are_of_the_last_step_and_have_an_answer(tmp_path):
  rows = [
    row("p", "old", step=2),
    row("p", "one"),
    row("p", None, sample=1),
    row("p", " ", sample=2),
    row("q", "two"),
    row("q", "two", sample=1),  # drawn twice is there twice
    {"id": "p", "passes": 1, "n": 4, "kept": True},
  ]
  found = candidates.read(written(tmp_path, "rollouts.jsonl", rows))
  said = {prompt: [one["answer"] for one in group] for prompt, group in found.items()}
  assert said == {"p#0": ["one"], "q#0": ["two", "two"]}
  with pytest.raises(ValueError, match="no reply of its 1 has an answer"):
    candidates.read(written(tmp_path, "none.jsonl", [row("p", None)]))
  with pytest.raises(ValueError, match=r"jsonl:1: lacks \['prompt_id', 'dialogue_id'"):
    candidates.read(written(tmp_path, "wrong.jsonl", [{"text": "x"}]))
  with pytest.raises(ValueError, match="jsonl:1: a reply to turn 2 of a dialogue that"):
    candidates.read(written(tmp_path, "played.jsonl", [row("p", "x") | {"turn": 2}]))


def test_every_candidate_stands_in_a_comparison_without_the_reference(tmp_path):
  groups = {
    "p#0": [row("p", text, sample=k) for k, text in enumerate("abc")],
    "q#0": [row("q", "d")],
  }
  asked = Candidates(groups, talks(tmp_path), ["overall", "warmth"])
  assert asked.members == [
    (("p#0", 0), ("p#0", 1)),
    (("p#0", 2), ("p#0", 0)),
    (("q#0", 0), ("q#0", 0)),
  ]
  samples = [asked.sample(*place) for place in asked.places()]
  said = [[one.text for one in sample.candidates] for sample in samples]
  assert said == [["a", "b"], ["c", "a"], ["d", "d"]]
  assert len({sample.task_id for sample in samples}) == len(asked) == 3
  assert [message["role"] for message in samples[0].context] == ["human"]
  assert samples[0].dims == {"overall": None, "warmth": None}
  with pytest.raises(ValueError, match=r"lacks 1 dialogues: \['r'\]"):
    Candidates({"r#0": [row("r", "a")]}, talks(tmp_path), ["overall"])
