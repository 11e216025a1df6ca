"""Dialogues with repliers of known faults, and with a model of random weights."""

import json
import re

import numpy as np
import pytest

from stepaudio_jax import evaluate, sampling
from stepaudio_jax.data.world import talks
from stepaudio_jax.evals import interaction
from stepaudio_jax.evals.interaction import Options
from stepaudio_jax.evals.parts import conversation, judging
from stepaudio_jax.evals.parts.replies import Reply
from stepaudio_jax.text import messages
from tests.evals import worlds
from tests.evals.talkers import (
  DIALOGUES,
  IN_SILENCE,
  OPTIONS,
  TURNS,
  Replier,
  forgetful,
  perfect,
  talked,
  write_talks,
)


def lines(path):
  return path.read_text().splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("interaction") / "data"


@pytest.fixture(scope="module")
def truths(folder):
  return write_talks(folder)


@pytest.fixture(scope="module")
def scored(folder, truths):
  return talked(folder, truths, perfect)


def means(curve):
  return {one["turn"]: one["mean"] for one in curve["turns"]}


def test_a_perfect_replier_scores_the_maximum_on_every_turn(scored):
  summary = scored[0]
  assert (summary["simulated"], summary["dialogues"], summary["turns"]) == (True, 4, 4)
  assert list(summary["dimensions"]) == list(interaction.DIMENSIONS)
  for name, curve in summary["dimensions"].items():
    first = 2 if name == "memory" else 1
    assert means(curve) == dict.fromkeys(range(first, 5), 5.0), name
    assert curve["slope"]["per_turn"] == 0
    # Facts and moods halve the turns but the first, which asks for moods only.
    share = {"memory": 2, "mood": 2}.get(name, 4)
    counts = [one["n"] for one in curve["turns"]]
    assert counts == [4] * (name != "memory") + [share] * 3
  assert {e["mean"] for e in summary["memory_by_distance"].values()} == {5.0}
  assert sum(e["n"] for e in summary["memory_by_distance"].values()) == 6


def test_silence_is_the_same_dialogue_without_sound(scored):
  """There the stand-in always says "low", obeys nothing and has no tone."""
  for name, curve in scored[0]["dimensions"].items():
    quiet = curve["silence"]
    wanted = {"memory": 1.0, "mood": 1.0, "instruction_retention": 1.0}
    wanted |= {"emotional_continuity": 3.0, "coherence": 5.0, "naturalness": 4.5}
    assert set(means(quiet).values()) == {wanted[name]}
    unparsed = {"memory": 6, "mood": 10}.get(name, 0)
    assert quiet["all"]["n_unparsed"] == unparsed


def test_a_forgetful_replier_falls_on_memory_alone(folder, truths):
  summary, _, _ = talked(folder, truths, forgetful)
  by_distance = {k: e["mean"] for k, e in summary["memory_by_distance"].items()}
  assert by_distance == {k: 5.0 if k == "1" else 1.0 for k in by_distance}
  assert {"1", "2"} <= set(by_distance)
  memory = summary["dimensions"]["memory"]
  # In turn 2 all was told one turn ago; then less and less is.
  late = {
    turn: [
      5.0 if one["distance"] == 1 else 1.0
      for place, one in truths.items()
      if one["task"] == "memory" and place.endswith(f"#{turn - 1}")
    ]
    for turn in (2, 3, 4)
  }
  assert means(memory) == {turn: np.mean(scores) for turn, scores in late.items()}
  assert means(memory)[2] == 5.0
  assert memory["slope"]["per_turn"] < 0
  for name in set(interaction.DIMENSIONS) - {"memory"}:
    # It names a fact that nobody told, which is incoherent too.
    if name != "coherence":
      assert set(means(summary["dimensions"][name]).values()) == {5.0}


def test_own_replies_without_thoughts_are_what_the_next_prompt_holds(scored, folder):
  _, items, replier = scored
  rows = [json.loads(line) for line in lines(folder / talks.DIALOGUES)]
  heard = [item for item in items if item["condition"] == "audio"]
  assert len(heard) == DIALOGUES * TURNS
  for item in heard:
    own = [i for i in heard if i["id"] == item["id"] and i["turn"] < item["turn"]]
    read = replier.read[f"{item['id']}#{item['turn'] - 1}"]
    roles = [message["role"] for message in item["messages"]]
    assert roles == ["human", "assistant"] * (item["turn"] - 1) + ["human"]
    for earlier in own:
      assert f"assistant\n{earlier['reply']}" in read
      assert earlier["think"] not in read
      assert earlier["messages"] == item["messages"][: len(earlier["messages"])]
    assert "<think>" not in read.removesuffix("assistant\n<think>\n")
    # Not the replies that the data holds.
    (row,) = [row for row in rows if row["id"] == item["id"]]
    # What the human says is what the data holds.
    asked = [m["content"][1]["text"] for m in row["messages"][::2]]
    texts = [m["content"][1]["text"] for m in item["messages"][::2]]
    assert texts == asked[: item["turn"]]
    assert texts[-1] in read
    for k, earlier in enumerate(own):
      given = row["messages"][2 * k + 1]["content"][0]["text"]
      assert given == earlier["reply"] or given not in read


def test_a_thought_that_never_closes_leaves_an_empty_turn(folder, truths):
  def lost_at_first(truth, deal):
    if truth["id"].endswith("#0"):
      return "The voice is flat and no end"
    return perfect(truth, deal)

  summary, items, replier = talked(folder, truths, lost_at_first)
  for name, curve in summary["dimensions"].items():
    wanted = {turn: 1.0 if turn == 1 else 5.0 for turn in means(curve)}
    assert means(curve) == wanted, name
    assert curve["all"]["n_unparsed"] == (0 if name == "memory" else 4)
  (second,) = [
    i
    for i in items
    if (i["id"], i["turn"]) == ("talk-00000", 2)
    and i["raw"]
    and i["condition"] == "audio"
  ]
  assert second["messages"][1] == {
    "role": "assistant",
    "content": [{"type": "text", "text": ""}],
  }
  assert "and no end" not in replier.read["talk-00000#1"]


def test_an_answer_that_looks_like_a_thought_is_text():
  reply = Reply(None, 0, (), (), "", "", "<think> I begin", truncated=False)
  (message,) = messages.normalise([conversation.own_turn(reply)], "x")
  assert messages.text_of(message) == "<think> I begin"


def test_what_no_longer_fits_failed_from_that_turn_on(tmp_path):
  truths = write_talks(tmp_path / "data", lengthen=(2, 1))
  options = Options(4, 64, 0.0, silence=False)
  summary, items, _ = talked(tmp_path / "data", truths, perfect, options)
  failed = [(i["id"], i["turn"]) for i in items if i["failed"]]
  assert failed == [("talk-00002", turn) for turn in (2, 3, 4)]
  reasons = {item["failed"] for item in items if item["failed"]}
  assert len(reasons) == 1
  assert re.fullmatch(r"turn 2: \d+ tokens, there is room for 448", reasons.pop())
  curve = summary["dimensions"]["instruction_retention"]
  assert curve["silence"] is None
  # Three of four obey: (5 · 3 + 1) / 4.
  assert means(curve) == {1: 5.0, 2: 4.0, 3: 4.0, 4: 4.0}
  assert [one["n_failed"] for one in curve["turns"]] == [0, 1, 1, 1]
  assert curve["turns"][1]["mean_answered"] == 5.0
  interaction.plot(summary)


def test_all_dialogues_may_end(tmp_path):
  truths = write_talks(tmp_path / "data")
  model = worlds.model()
  little = Options(4, worlds.SIZE.max_positions - 60, 0.0, silence=False)
  with pytest.MonkeyPatch.context() as patch:
    said = dict.fromkeys(truths, IN_SILENCE)
    patch.setattr(sampling, "sample", Replier(model, tmp_path / "data", said))
    summary, _ = interaction.evaluate(
      model, tmp_path / "data", cache=tmp_path / "data" / "cache", options=little
    )
  curve = summary["dimensions"]["naturalness"]
  assert curve["turns"][-1]["n_failed"] == DIALOGUES
  assert curve["turns"][-1]["mean"] == 1.0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A checkpoint in run/ and dialogues of two turns in data/interaction/."""
  place = tmp_path_factory.mktemp("command")
  worlds.write_checkpoint(place / "run")
  (place / "data").mkdir()
  write_talks(place / "data" / "interaction", turns=2)
  return place


def command(place, out, *more):
  """Runs it on two dialogues; what it wrote, by ending."""
  arguments = ["--checkpoint", str(place / "run"), "--benchmark", "interaction"]
  arguments += ["--data", str(place / "data"), "--cache", str(place / "cache")]
  arguments += ["--max_new_tokens", "4", "--limit", "2", "--temperature", "1"]
  evaluate.main([*arguments, "--out", str(place / out), *more])
  names = ("items.jsonl", "md", "json")
  return {n: (place / out / f"interaction.{n}").read_bytes() for n in names}


def test_the_command_gives_the_same_twice(place):
  written = command(place, "a")
  assert command(place, "b") == written
  items = [json.loads(line) for line in written["items.jsonl"].splitlines()]
  assert len(items) == 2 * 2 * 2
  raw = {(i["id"], i["turn"], i["condition"]): i["raw"] for i in items}
  assert len(set(raw.values())) > len(raw) / 2  # it does draw
  assert "simulated listeners" in written["md"].decode()


def test_the_command_takes_a_judge(place, monkeypatch):
  class Silent:
    def describe(self):
      return {"kind": "scripted"}

    def answers(self, questions):
      return [None] * len(questions)

  monkeypatch.setattr(judging, "judge", lambda *_: Silent())
  rubric = {"turn": 2, "dimension": "warmth", "text": "It is warm."}
  rows = [{"id": f"talk-0000{n}", **rubric} for n in range(2)]
  worlds.write_jsonl(place / "data" / "interaction" / interaction.RUBRICS, rows)
  written = command(place, "judged", "--judge", str(place), "--no-silence")
  summary = json.loads(written["json"])
  assert summary["listener"]["kind"] == "scripted"
  assert summary["dimensions"]["warmth"]["all"]["n_unparsed"] == 2
  with pytest.raises(SystemExit):
    command(place, "x", "--judge", "nobody")


def test_files_that_do_not_fit_together_are_an_error(tmp_path):
  write_talks(tmp_path / "data")
  path = tmp_path / "data" / talks.TRUTH
  rows = [json.loads(line) for line in lines(path)]
  rows[1]["turns"].pop()
  worlds.write_jsonl(path, rows[:3])
  with pytest.raises(ValueError, match=r"2 dialogues: \['talk-00001', 'talk-00003'\]"):
    interaction.evaluate(
      worlds.model(), tmp_path / "data", cache=tmp_path, options=OPTIONS
    )
  with pytest.raises(ValueError, match="samples=2: a dialogue goes on from one"):
    Options(4, 8, 0.0, samples=2)
