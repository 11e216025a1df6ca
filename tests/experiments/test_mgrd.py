"""MGRD's filter: what is kept and why not, and that no reply is lost."""

import json
import pathlib
import subprocess

import pytest

from configs import mgrd as recipe_file
from configs import sft
from experiments import mgrd, mgrd_rules
from stepaudio_jax import train
from stepaudio_jax.core import recipe
from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Row

ROOT = pathlib.Path(__file__).resolve().parents[2]
PITCH = {"id": "p", "answer": "low", "choices": ["low", "middle", "high"]}
DIGITS = {"id": "d", "answer": "three"}
GOOD = "A deep tone, so the voice is low.\n</think>\nIt is low."


def asked(dialogue, path="a.wav", last=None):
  blocks = [{"type": "audio", "path": path}, {"type": "text", "text": "Which pitch?"}]
  messages = [{"role": "human", "content": blocks}]
  if last:
    turn = {"role": "assistant", "content": [{"type": "text", "text": last}]}
    messages.append(turn)
  return {**dialogue, "messages": messages}


@pytest.mark.parametrize(
  ("dialogue", "text", "reasons"),
  [
    (PITCH, GOOD, ()),
    # Of what the thought ends at nothing is asked where it names no option.
    (PITCH, "A deep, dark tone.\n</think>\nLow.", ()),
    (PITCH, "Is the pitch low or high? It is low.\n</think>\nLow.", ()),
    (PITCH, "A deep tone, low pitch.", ("the thought never closes",)),
    (PITCH, "He says it is low.\n</think>\nLow.", ("names nothing that can be heard",)),
    (PITCH, "A bright tone, it is high.\n</think>\nHigh.", ("wrong",)),
    (
      PITCH,
      "A bright tone, so it is high.\n</think>\nLow.",
      ("the answer is not what the thought ends at",),
    ),
    (PITCH, "Deep tone.\n</think>\nLow.", ("a thought of 2 words",)),
    (PITCH, "A low tone. A low tone.\n</think>\nLow.", ("repeats itself",)),
    (
      PITCH,
      # 12 words: 10 triples, of which 5 came before.
      "a deep tone and a deep tone and a deep tone and\n</think>\nLow.",
      ("repeats itself",),
    ),
    (
      PITCH,
      "A deep\n</think>\ntone, low.\n</think>\nLow.",
      ("no thought closed once before an answer",),
    ),
    (
      DIGITS,
      "By the rhythm one and two beats make three.\n</think>\nThree.",
      (),
    ),
    (
      DIGITS,
      "By the rhythm there are two beats.\n</think>\nThree.",
      ("the answer is not what the thought ends at",),
    ),
    (PITCH, "音调很低沉。\n</think>\nlow", ()),
  ],
)
def test_why_a_reply_is_dropped(dialogue, text, reasons):
  assert mgrd_rules.verdict(dialogue, text).reasons == reasons


def test_all_reasons_are_told_not_the_first_alone():
  found = mgrd_rules.verdict(PITCH, "High, high.\n</think>\nHigh.").reasons
  nothing, few = "names nothing that can be heard", "a thought of 2 words"
  assert found == (nothing, few, "wrong")


def rollout(name, sample, text, **changes):
  think, _, answer = text.rpartition("\n</think>\n")
  row = {"prompt_id": f"{name}#0", "dialogue_id": name, "sample": sample}
  row |= {"text": text, "think": think, "answer": answer if think else None}
  return row | {"thinking": True} | changes


def sampled():
  return [
    rollout("p", 0, GOOD),
    rollout("p", 1, GOOD),
    rollout("p", 2, "A deep tone."),
    rollout("q", 0, "A bright tone.\n</think>\nHigh."),
  ]


def dialogues():
  talks = {name: asked(PITCH | {"id": name}, last="Old.") for name in ("p", "q", "r")}
  talks["p"]["meta"] = {"task": "pitch"}
  return talks


def test_nothing_is_lost_between_replies_evidence_and_counts():
  kept, evidence, counts = mgrd.filtered(dialogues(), sampled())
  assert [(row["dialogue_id"], row["sample"]) for row in evidence] == [
    ("p", 0),
    ("p", 1),
    ("p", 2),
    ("q", 0),
  ]
  assert [row["kept"] for row in evidence] == [True, False, False, False]
  assert evidence[1]["dropped_for"] == ["said before"]
  assert evidence[0]["features"] == {"pitch": ["tone"], "timbre": ["voice is low"]}
  assert evidence[0]["conclusion"] == "low"
  assert counts == {
    "dialogues": 3,
    "without_replies": 1,
    "replies": 4,
    "kept": 1,
    "dialogues_kept": 1,
    "dropped_first_for": {"said before": 1, "the thought never closes": 1, "wrong": 1},
    "dropped_for": {"said before": 1, "the thought never closes": 1, "wrong": 1},
  }
  assert counts["kept"] + sum(counts["dropped_first_for"].values()) == 4
  (row,) = kept
  assert row["id"] == "p/0"
  assert row["meta"] == {"task": "pitch", "sample": 0, "features": ["pitch", "timbre"]}
  assert [message["role"] for message in row["messages"]] == ["human", "assistant"]
  talk = schema.dialogue(Row(row, "kept.jsonl:1", "/"))
  last = talk.row["messages"][-1]
  assert last["think"] == "A deep tone, so the voice is low."
  assert last["content"] == [{"type": "text", "text": "It is low."}]


class Judge:
  def __init__(self, *replies):
    self.replies, self.questions = replies, []

  def describe(self):
    return {"kind": "stub"}

  def answers(self, questions):
    self.questions = [*questions]
    return [*self.replies]


def test_a_judge_is_asked_of_what_the_rules_keep_and_an_unread_reply_keeps_nothing():
  rows = [
    rollout("p", k, GOOD.replace("so", word))
    for k, word in enumerate(("so", "and", "well"))
  ]
  rows.append(rollout("q", 0, "A bright tone.\n</think>\nHigh."))
  judge = Judge("YES", "NO", "perhaps")
  _, evidence, counts = mgrd.filtered(dialogues(), rows, judge)
  assert [row["dropped_for"] for row in evidence] == [
    [],
    ["the judge: incoherent"],
    ["the judge: unread"],
    ["wrong"],
  ]
  assert [row["judged"] for row in evidence] == ["YES", "NO", "perhaps", None]
  assert counts["kept"] == 1
  assert "Which pitch?" in judge.questions[0].text
  assert "A deep tone, so the voice is low." in judge.questions[0].text


def test_replies_that_do_not_fit_are_errors():
  with pytest.raises(ValueError, match=r"dialogues that are not there: \['z'\]"):
    mgrd.filtered(dialogues(), [rollout("z", 0, GOOD)])
  with pytest.raises(ValueError, match=r"without a thought: \['p#0'\]"):
    mgrd.filtered(dialogues(), [rollout("p", 0, GOOD, thinking=False)])


def write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def test_files_in_files_out_with_paths_from_anywhere(tmp_path):
  (tmp_path / "world").mkdir()
  talks = write(tmp_path / "world" / "d.jsonl", dialogues().values())
  out = tmp_path / "out" / "1"
  assert mgrd.questions(talks, out / "questions.jsonl", 2, skip=2) == 2
  chosen = [*mgrd.read(out / "questions.jsonl").values()]
  assert [row["id"] for row in chosen] == ["r", "p"]  # around the end
  heard = chosen[0]["messages"][0]["content"][0]["path"]
  assert heard == str(tmp_path / "world" / "a.wav")
  with pytest.raises(ValueError, match=r"count=4: .*d.jsonl has 3 dialogues"):
    mgrd.questions(talks, out / "q.jsonl", 4, skip=0)
  bounds = [{"id": name, "passes": 1, "n": 3, "kept": name != "q"} for name in "pqr"]
  rollouts = write(tmp_path / "r.jsonl", [*sampled(), *bounds])
  counts = mgrd.run(rollouts, talks, out)
  assert counts["prompts"] == 2
  assert counts == json.loads((out / "counts.json").read_text())
  assert [*mgrd.read(out / "prompts-train.jsonl")] == ["p", "r"]
  (row,) = mgrd.read(out / "kept.jsonl").values()
  assert row["messages"][0]["content"][0]["path"] == heard
  assert len((out / "evidence.jsonl").read_text().splitlines()) == 4


def test_nothing_kept_is_an_error_that_says_why(tmp_path):
  talks = write(tmp_path / "d.jsonl", dialogues().values())
  rollouts = write(tmp_path / "r.jsonl", sampled()[2:])
  with pytest.raises(ValueError, match=r"of 2 replies 0 are kept.*'wrong': 1"):
    mgrd.run(rollouts, talks, tmp_path / "out")
  assert len((tmp_path / "out" / "evidence.jsonl").read_text().splitlines()) == 2


def test_the_recipe_is_sfts_on_kept_replies_beside_text():
  for arg in ("", "smoke", "size=step_audio_r1"):
    c = recipe_file.get_config(arg)
    assert train.checked(c) is not None
    ours, theirs = recipe.flat(c), recipe.flat(sft.get_config(arg))
    changed = {k for k in theirs if k in ours and ours[k] != theirs[k]}
    free = {"stage", "init", "total_steps", "optim.lr", "optim.warmup_steps"}
    assert changed <= free | {"checkpoint.every_steps"}
    assert set(c.data.mix) == {"kept", "written"}


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--wrong"], "unknown argument '--wrong'"),
    (["--start", "a"], "--start, --world and --workdir are needed"),
    (
      ["--start", "a", "--world", "w", "--workdir", "x", "--iterations", "0"],
      "--iterations '0' is no number above 0",
    ),
    (
      ["--start", "tests", "--world", "/nowhere", "--workdir", "x"],
      "there is no /nowhere/prompts-train.jsonl",
    ),
    (
      ["--start", "/nowhere", "--world", "w", "--workdir", "x"],
      "there is no start '/nowhere'",
    ),
  ],
)
def test_wrong_arguments_of_the_script(arguments, message):
  done = subprocess.run(
    ["bash", str(ROOT / "experiments" / "mgrd.sh"), *arguments],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert message in done.stderr
