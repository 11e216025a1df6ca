"""Replies and rollout rows from a checkpoint of random weights."""

import dataclasses
import json
import re

import numpy as np
import pytest

from stepaudio_jax import generate
from tests.evals import worlds

SAMPLES = 3
NEW = 5
ROW_KEYS = {"prompt_id", "dialogue_id", "sample", "token_ids", "logprobs", "text"}
ROW_KEYS |= {"think", "answer", "truncated", "thinking", "temperature", "seed"}
ROW_KEYS |= {"step", "policy_version"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("generate")
  worlds.write_checkpoint(folder / "run")
  worlds.write_world(folder / "world")
  return folder


def rollouts(folder, name, batch_size, seed=0, source="dialogues-heldout.jsonl"):
  counts = generate.rollouts(
    checkpoint=folder / "run",
    jsonl=folder / "world" / source,
    out=folder / name,
    cache=folder / "cache",
    samples=SAMPLES,
    batch_size=batch_size,
    max_new_tokens=NEW,
    temperature=1.0,
    seed=seed,
  )
  return counts, [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def sampled(folder):
  return rollouts(folder, "two.jsonl", batch_size=2)


def test_rollout_rows_follow_the_schema(sampled, folder):
  counts, rows = sampled
  # Six dialogues, one too long; random weights seldom stop within five tokens.
  cut = sum(row["truncated"] for row in rows)
  assert counts == {"prompts": 6, "failed": 1, "rows": 15, "truncated": cut}
  assert cut > 10
  assert all(set(row) == ROW_KEYS for row in rows)
  ids = [(row["prompt_id"], row["sample"]) for row in rows]
  order = ["p-c0#0", "p-c1#0", "p-c2#0", "p-c3#0", "d-0#1"]
  assert ids == [(name, sample) for name in order for sample in range(SAMPLES)]
  for row in rows:
    assert row["dialogue_id"] == row["prompt_id"].partition("#")[0]
    assert len(row["token_ids"]) == len(row["logprobs"]) <= NEW
    assert len(row["token_ids"]) == NEW or not row["truncated"]
    assert max(row["logprobs"]) <= 0
    assert (row["step"], row["policy_version"]) == (worlds.STEP, worlds.STEP)
    assert (row["seed"], row["answer"]) == (0, None)
  assert len({tuple(row["token_ids"]) for row in rows}) == 15
  assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_rows_are_the_same_in_batches_of_any_size(sampled, folder, batch_size):
  _, rows = rollouts(folder, f"{batch_size}.jsonl", batch_size)
  for row, same in zip(sampled[1], rows, strict=True):
    assert row["token_ids"] == same["token_ids"]
    np.testing.assert_allclose(row["logprobs"], same["logprobs"], atol=1e-4)


def test_rows_do_not_depend_on_their_neighbours_but_on_the_seed(sampled, folder):
  lines = (folder / "world" / "dialogues-heldout.jsonl").read_text().splitlines()
  fewer = "\n".join([lines[4], lines[2]]) + "\n"  # d-0, p-c2
  (folder / "world" / "fewer.jsonl").write_text(fewer)
  _, rows = rollouts(folder, "fewer.jsonl", 2, source="fewer.jsonl")
  wanted = [*sampled[1][12:15], *sampled[1][6:9]]
  assert [r["token_ids"] for r in rows] == [r["token_ids"] for r in wanted]
  _, other = rollouts(folder, "other.jsonl", 2, seed=1, source="fewer.jsonl")
  assert all(a["token_ids"] != b["token_ids"] for a, b in zip(rows, other, strict=True))


def test_a_reply_is_printed(folder, capsys):
  generate.main(
    [
      *("--checkpoint", str(folder / "run"), "--prompt", "How high?"),
      *("--audio", *(str(folder / "world/speech" / f"c{k}.wav") for k in (0, 3))),
      *("--system", "Listen.", "--temperature", "0", "--max_new_tokens", "4"),
    ]
  )
  out, err = capsys.readouterr()
  assert out.startswith("[thought]\n")
  assert out.endswith("[answer]\n")
  assert "cut off after 4 tokens" in err


def test_without_thinking_all_is_answer(folder, capsys):
  asked = {"checkpoint": folder / "run", "prompt": "How high?", "max_new_tokens": 4}
  reply = generate.run(**asked, thinking=False)
  opened, empty = (
    worlds.model().tokenizer.decode(said.prompt.example.token_T)
    for said in (generate.run(**asked), reply)
  )
  assert opened.endswith("<think>\n")
  assert empty.endswith("<think>\n\n</think>\n")
  assert (reply.think, reply.answer) == ("", reply.text.strip())
  generate.main(
    [
      *("--checkpoint", str(folder / "run"), "--prompt", "How high?"),
      *("--nothinking", "--max_new_tokens", "4"),
    ]
  )
  assert capsys.readouterr().out == reply.answer + "\n"


def test_recordings_come_first_and_content_decides(folder):
  wav = worlds.write_noise(folder / "named.mp3.wav", 16_000, seed=9)
  mislabelled = wav.rename(folder / "sound.mp3")
  reply = generate.run(
    checkpoint=folder / "run",
    audio=[mislabelled],
    prompt="How high?",
    system="Listen.",
    temperature=0.0,
    max_new_tokens=4,
  )
  system, human = reply.prompt.row["messages"]
  assert system["content"] == [worlds.text("Listen.")]
  assert [block["type"] for block in human["content"]] == ["audio", "text"]
  assert len(reply.token_ids) == 4
  (span,) = reply.prompt.example.spans
  assert span.count == 13  # audio tokens of one second


def test_long_audio_is_cut_every_25_seconds(folder):
  long = worlds.write_noise(folder / "long.wav", 26 * 16_000, seed=5)
  reply = generate.run(checkpoint=folder / "run", audio=[long], max_new_tokens=1)
  assert [span.count for span in reply.prompt.example.spans] == [313, 13]


def test_wrong_files_are_named(folder, capsys):
  command = ["--checkpoint", str(folder / "run"), "--prompt", "How high?", "--audio"]
  (folder / "text.wav").write_text("this is no sound")
  for name in ("text.wav", "nowhere.wav"):
    with pytest.raises(SystemExit):
      generate.main([*command, str(folder / name)])
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.match(f"generate: example 'the question' .*/{name}", err)
  with pytest.raises(SystemExit) as stop:
    generate.main(["--checkpoint", str(folder / "nowhere"), "--prompt", "Hello?"])
  assert stop.value.code == 2
  assert re.match(r"generate: no checkpoint in .*/nowhere", capsys.readouterr().err)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"max_new_tokens": 512}, "max_new_tokens=512 leaves no room for a prompt"),
    ({"temperature": -1.0}, "cannot sample with temperature=-1.0"),
    ({"top_p": 0.0}, "cannot sample with top_p=0.0"),
    ({"temperatur": 1.0}, "temperatur"),
  ],
)
def test_impossible_options_show_before_the_model_is_loaded(
  folder, monkeypatch, options, message
):
  monkeypatch.setattr(
    generate.workdirs, "load_model", lambda _: pytest.fail("it was loaded")
  )
  with pytest.raises((ValueError, TypeError), match=message):
    generate.run(checkpoint=folder / "run", prompt="Why?", **options)


@pytest.mark.parametrize(
  ("answer", "truncated", "wanted"),
  [
    (
      None,
      True,
      "the answer never came: the thought did not close\ncut off after 2 tok",
    ),
    ("", False, "the answer is empty\n"),
    ("Low.", False, ""),
  ],
)
def test_what_is_missing_is_explained(capsys, answer, truncated, wanted):
  reply = generate.Reply(None, 0, (1, 2), (0.0, 0.0), "", "Hm.", answer, truncated)
  generate._show(reply, thinking=True)
  out, err = capsys.readouterr()
  assert out == "[thought]\nHm.\n[answer]\n" + (f"{answer}\n" if answer else "")
  assert err.startswith(wanted)
  assert bool(err) == bool(wanted)


@pytest.mark.parametrize(
  ("arguments", "wanted"),
  [
    ([], "give --audio, --prompt or both, or else --jsonl and --out"),
    (["--system", "x"], "give --audio, --prompt or both, or else --jsonl and --out"),
    (["--jsonl", "x"], "give --audio, --prompt or both, or else --jsonl and --out"),
    (["--prompt", "x", "--samples", "2"], "['prompt'] ask for one reply and"),
    (["--prompt", "x", "--keep", "3..6"], "['prompt'] ask for one reply and ['keep']"),
    (["--jsonl", "x", "--out", "y", "--keep", "3"], "'3' is not LOW..HIGH, such as"),
    (["--jsonl", "x", "--out", "y", "--keep=-1..2"], "'-1..2' is not LOW..HIGH"),
    (["--keep", "3..6"], "give --audio, --prompt or both, or else --jsonl and --out"),
  ],
)
def test_arguments_that_do_not_go_together(arguments, wanted, capsys):
  with pytest.raises(SystemExit) as stop:
    generate.main(["--checkpoint", "x", *arguments])
  assert stop.value.code == 2
  assert wanted in capsys.readouterr().err


def test_a_prompt_that_is_too_long_is_an_error(folder):
  with pytest.raises(ValueError, match=r"no prompt can be asked.*\n.*room for 508"):
    generate.run(checkpoint=folder / "run", prompt="Why? " * 400, max_new_tokens=4)
  with pytest.raises(ValueError, match="samples=0 must be at least 1"):
    generate.rollouts(checkpoint="x", jsonl="y", out="z", samples=0)


def test_a_failed_run_leaves_the_old_rows(folder, monkeypatch):
  out = folder / "kept.jsonl"
  out.write_text("old\n")

  def broken(*_):
    yield from ()
    raise FloatingPointError("not finite")

  monkeypatch.setattr(generate, "replies", broken)
  with pytest.raises(FloatingPointError):
    generate.rollouts(
      checkpoint=folder / "run",
      jsonl=folder / "world" / "dialogues-heldout.jsonl",
      out=out,
      cache=folder / "cache",
      max_new_tokens=NEW,
    )
  assert out.read_text() == "old\n"


def answered(folder, name, **changes):
  """The world's dialogues with their answers, and those of `changes` instead."""
  truths = (folder / "world" / "truth-heldout.jsonl").read_text().splitlines()
  truths = {row["id"]: row for row in map(json.loads, truths)}
  lines = (folder / "world" / "dialogues-heldout.jsonl").read_text().splitlines()
  path = folder / "world" / f"{name}.jsonl"
  with path.open("w") as file:
    for row in map(json.loads, lines):
      row["answer"] = truths[row["id"]]["answer"]
      if "choices" in truths[row["id"]]:
        row["choices"] = truths[row["id"]]["choices"]
      row |= changes.get(row["id"], {})
      file.write(json.dumps(row) + "\n")
  return path


# What the model is made to say to each prompt: two, one and no right replies of three.
SAID = {
  "p-c0#0": ["x\n</think>\nlow", "x\n</think>\nhigh", "x\n</think>\nIt is A."],
  "p-c1#0": ["x\n</think>\nhigh", "high", "\n</think>\nhigh or low"],
  "p-c2#0": ["low</think>", "x</think>low", "high"],
  "p-c3#0": ["x</think>middle"] * 3,
  "d-0#1": ["x</think>2 9", "x</think>29", "x</think>nine two"],
}
RIGHTS = {"p-c0": 2, "p-c1": 1, "p-c2": 0, "p-c3": 3, "d-0": 2}


@pytest.fixture
def saying(monkeypatch):
  """Replaces the texts of sampled replies by those of SAID, all of them cut short."""
  real = generate.replies

  def replies(model, asked, options):
    for reply in real(model, asked, options):
      said = SAID[reply.prompt.id][reply.sample]
      yield dataclasses.replace(reply, text=said, truncated=True)

  monkeypatch.setattr(generate, "replies", replies)


def test_keep_counts_right_replies_and_keeps_the_middle(folder, saying, capsys):
  source = answered(folder, "answered")
  generate.main(
    [
      *("--checkpoint", str(folder / "run"), "--jsonl", str(source)),
      *("--out", str(folder / "keep.jsonl"), "--cache", str(folder / "cache")),
      *("--samples", "3", "--keep", "1..2", "--batch_size", "2"),
      *("--max_new_tokens", str(NEW)),
    ]
  )
  out = capsys.readouterr().out
  assert out == "6 prompts, 1 failed, 15 rows, 15 truncated, 3 kept\n"
  rows = list(map(json.loads, (folder / "keep.jsonl").read_text().splitlines()))
  rolled, summaries = rows[:15], rows[15:]
  assert all(set(row) == ROW_KEYS | {"reward"} for row in rolled)
  for name, passes in RIGHTS.items():
    given = [row["reward"] for row in rolled if row["dialogue_id"] == name]
    assert sum(reward["accuracy"] for reward in given) == passes
  assert summaries == [
    {"id": "p-c0", "passes": 2, "n": 3, "kept": True},
    {"id": "p-c1", "passes": 1, "n": 3, "kept": True},
    {"id": "p-c2", "passes": 0, "n": 3, "kept": False},
    {"id": "p-c3", "passes": 3, "n": 3, "kept": False},
    {"id": "d-0", "passes": 2, "n": 3, "kept": True},
    {"id": "p-long", "passes": 0, "n": 0, "kept": False},
  ]


def test_keep_without_thinking_reads_all_as_the_answer(folder, saying, monkeypatch):
  monkeypatch.setitem(SAID, "p-c1#0", ["high", "low", "It is high."])
  source = answered(folder, "unthinking")
  counts = generate.rollouts(
    checkpoint=folder / "run",
    jsonl=source,
    out=folder / "unthinking-rows.jsonl",
    cache=folder / "cache",
    samples=3,
    keep=(2, 2),
    batch_size=2,
    max_new_tokens=NEW,
    thinking=False,
  )
  lines = (folder / "unthinking-rows.jsonl").read_text().splitlines()
  kept = [row["id"] for row in map(json.loads, lines) if row.get("kept")]
  assert kept == ["p-c0", "p-c1", "d-0"]
  assert counts["kept"] == 3


def test_keep_wants_answers_and_possible_bounds_before_it_samples(folder, monkeypatch):
  def never(*_):
    raise AssertionError("a model was loaded")

  monkeypatch.setattr(generate.workdirs, "load_model", never)
  asked = {"checkpoint": folder / "run", "out": folder / "never.jsonl", "samples": 3}
  source = answered(folder, "unanswered", **{"p-c2": {"answer": None}})
  with pytest.raises(ValueError, match=r"example 'p-c2' has no 'answer'"):
    generate.rollouts(**asked, jsonl=source, keep=(1, 2))
  source = answered(folder, "elsewhere", **{"p-c1": {"answer": "loud"}})
  with pytest.raises(ValueError, match=r"'p-c1': answer 'loud' is not among .*'low'"):
    generate.rollouts(**asked, jsonl=source, keep=(1, 2))
  for keep in ((2, 1), (1, 4)):
    with pytest.raises(ValueError, match=r"keep=\(.*\) is not within 0..samples=3"):
      generate.rollouts(**asked, jsonl=answered(folder, "answered"), keep=keep)
  assert not (folder / "never.jsonl").exists()
