"""Other formats: the better reply stays the better one, wherever it is listed."""

import json

import pytest

from stepaudio_jax.data import schema
from stepaudio_jax.data.corpus import Corpus
from tests.data.rows import write_rows, write_tone
from tests.preferences.told import call

SCORES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def scored(prompt, reply, *values):
  named = dict(zip(SCORES, values, strict=True))
  return {"prompt": prompt, "response": reply, **named}


def converted(tmp_path, kind, rows, seed=0):
  """The rows, after training's own reader has read them and `validate` found none."""
  path = write_rows(tmp_path / "in.jsonl", rows)
  out = tmp_path / f"out-{seed}.jsonl"
  assert call("convert", "--from", kind, path, "--out", out, "--seed", seed) == 0
  assert call("validate", out) == 0
  options = {"preference": {"path": str(out)}}
  corpus = Corpus({"preference": 1.0}, options, "train", schema.Preference)
  assert len(corpus) == len(out.read_text().splitlines())
  return [corpus.sample(0, k) for k in range(len(corpus))]


def sides(sample):
  """(better, worse) answers by the overall choice."""
  first, second = (one.text for one in sample.candidates)
  return (first, second) if sample.overall < 0 else (second, first)


def test_pairs_of_text(tmp_path):
  rows = [
    {"prompt": f"Question {k}?", "chosen": f"Good {k}.", "rejected": f"Bad {k}."}
    for k in range(200)
  ]
  found = converted(tmp_path, "pairwise", rows)
  assert len(found) == 200
  for k, one in enumerate(found):
    assert sides(one) == (f"Good {k}.", f"Bad {k}.")
    assert abs(one.overall) == 1
    assert one.context[0]["content"] == [{"type": "text", "text": f"Question {k}?"}]
    assert (one.order_seed % 2 == 1) == (one.overall > 0)  # odd: turned
  first = sum(one.overall < 0 for one in found)
  assert 70 < first < 130  # four standard deviations: the chosen one is not first
  other = converted(tmp_path, "pairwise", rows, seed=1)
  assert [one.overall for one in other] != [one.overall for one in found]
  assert [one.id for one in other] == [one.id for one in found]


def test_pairs_of_messages(tmp_path):
  ask = {"role": "user", "content": "Colour of the sky?"}
  good, bad = ({"role": "assistant", "content": c} for c in ("Blue.", "Green."))
  earlier = [
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Ho."},
  ]
  write_tone(tmp_path / "a.wav", 1600)
  heard = {"role": "user", "content": [{"type": "audio", "path": "a.wav"}]}
  parts = bad | {"content": [{"type": "text", "text": "Green."}]}
  thought = {"role": "assistant", "content": "Low.", "think": "A hum."}
  rows = [
    {"prompt": [ask], "chosen": [good], "rejected": [bad]},
    {"chosen": [ask, good], "rejected": [ask, bad], "margin": 2},
    {"prompt": ask["content"], "chosen": [ask, good], "rejected": [ask, bad]},
    {"prompt": [*earlier, ask], "chosen": [good], "rejected": [bad]},
    {"prompt": [ask], "chosen": [ask, good], "rejected": [ask, bad]},
    {"prompt": [ask], "chosen": "Blue.", "rejected": [parts]},
    {"prompt": [heard], "chosen": [thought], "rejected": [bad]},
  ]
  found = converted(tmp_path, "pairwise", rows)
  assert [len(one.context) for one in found] == [1, 1, 1, 3, 1, 1, 1]
  assert [sides(one) for one in found[:6]] == [("Blue.", "Green.")] * 6
  assert sides(found[6]) == ("Low.", "Green.")
  better = min(found[6].candidates, key=lambda one: one.text != "Low.")
  assert better.think == "A hum."
  assert found[6].audio[0].source == f"{tmp_path}/a.wav"
  # What is asked alike is one task.
  tasks = [one.task_id for one in found]
  assert len({tasks[k] for k in (0, 1, 2, 4, 5)}) == 1
  assert len(set(tasks)) == 3


def test_pairs_without_two_replies_are_counted(tmp_path, capsys):
  rows = [
    {"prompt": "A?", "chosen": "Yes.", "rejected": "Yes. "},
    {"prompt": "B?", "chosen": "Yes.", "rejected": ""},
    {"prompt": "C?", "chosen": "Yes.", "rejected": "No."},
  ]
  assert len(converted(tmp_path, "pairwise", rows)) == 1
  told = capsys.readouterr().out
  assert f"left out {tmp_path}/in.jsonl:1: both replies are 'Yes.'" in told
  assert f"left out {tmp_path}/in.jsonl:2: one of the replies is empty" in told
  assert "1 rows, 1 comparisons; left out: 1 equal, 1 empty" in told


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"prompt": "A?", "chosen": "Yes."}, "'rejected' is missing; the row has"),
    ({"chosen": "A", "rejected": "B"}, "'prompt' is None, neither a text nor mess"),
    ({"prompt": "A?", "chosen": [], "rejected": []}, "of 'chosen' is None, no reply"),
    (
      {
        "chosen": [{"role": "user", "content": "A"}],
        "rejected": [{"role": "user", "content": "A"}],
      },
      "last turn of 'chosen' is {'role': 'user', 'content': 'A'}, no reply",
    ),
    (
      {
        "chosen": [
          {"role": "user", "content": "A"},
          {"role": "assistant", "content": "B"},
        ],
        "rejected": [{"role": "assistant", "content": "C"}],
      },
      "differ before their last turn",
    ),
    (
      {"prompt": "A?", "chosen": "B", "rejected": "C", "images": ["x.png"]},
      "['images'] are not read",
    ),
    (
      {
        "prompt": "Other?",
        "chosen": [
          {"role": "user", "content": "A"},
          {"role": "assistant", "content": "B"},
        ],
        "rejected": [
          {"role": "user", "content": "A"},
          {"role": "assistant", "content": "C"},
        ],
      },
      "'prompt' is 'Other?', which no turn of 'chosen' says",
    ),
    ({"prompt": "A?", "chosen": "x</think>y</think>", "rejected": "C"}, "</think>"),
    (
      {
        "prompt": "A?",
        "chosen": [{"role": "assistant", "content": "B", "tool_calls": [1]}],
        "rejected": "C",
      },
      "example 'chosen', message 0: unknown keys ['tool_calls']",
    ),
  ],
)
def test_what_is_no_pair(tmp_path, capsys, row, message):
  path = write_rows(
    tmp_path / "in.jsonl", [{"prompt": "A?", "chosen": "B", "rejected": "C"}, row]
  )
  out = tmp_path / "out.jsonl"
  assert call("convert", "--from", "pairwise", path, "--out", out) == 2
  told = capsys.readouterr().err
  assert told.startswith(f"preferences: {path}:2: ")
  assert message in told
  assert "(1 problems in all)" in told
  assert told.count("\n") == 1
  assert not out.exists()


def test_helpsteer_scores_by_hand(tmp_path, capsys):
  rows = [
    scored("c#", "C# is a language.", 4, 4, 4, 2, 0),
    scored("c#", "A note.", 0, 1, 4, 3, None),
    scored("alone", "Nobody compares me.", 1, 1, 1, 1, 1),
    scored("d", "One.", 2, 2, 2, 2, 2),
    scored("d", "Two.", 3, 2, 2, 2, 2),
    scored("d", "Three.", 1, 2, 2.0, 2, 2),
  ]
  found = converted(tmp_path, "helpsteer", rows)
  told = capsys.readouterr().out
  assert f"{tmp_path}/in.jsonl:3: the only reply to 'alone'" in told
  assert "4 rows, 4 comparisons; left out: 1 alone" in told
  first = found[0]
  sign = -1 if first.candidates[0].text == "C# is a language." else 1
  # 4 against 0 is a difference of 4, which the scale ends at 3.
  assert first.overall == 3 * sign
  gaps = {"helpfulness": 3, "correctness": 3, "coherence": 0, "complexity": -1}
  assert first.dims == {k: v * sign for k, v in gaps.items()} | {"verbosity": None}
  by_text = {one.text: first.scores[one.cid] for one in first.candidates}
  assert by_text["C# is a language."] == dict(zip(SCORES, (5, 5, 5, 3, 1), strict=True))
  assert by_text["A note."] == dict(zip(SCORES[:4], (1, 2, 5, 4), strict=True))
  assert [sides(one) for one in found[1:]] == [
    ("Two.", "One."),
    ("One.", "Three."),
    ("Two.", "Three."),
  ]
  assert [abs(one.overall) for one in found[1:]] == [1, 1, 2]
  assert len({one.task_id for one in found[1:]}) == 1


def test_helpsteer_turns(tmp_path):
  prompt = (
    "Hello\n\n<extra_id_1>Assistant\nHi!\n<extra_id_1>User\nTell me more.\nPlease."
  )
  rows = [scored(prompt, "Sure.", 3, 3, 3, 3, 3), scored(prompt, "No.", 1, 1, 1, 1, 1)]
  (one,) = converted(tmp_path, "helpsteer", rows)
  turns = [(m["role"], m["content"][0]["text"]) for m in one.context]
  assert turns == [
    ("human", "Hello"),
    ("assistant", "Hi!"),
    ("human", "Tell me more.\nPlease."),
  ]


def test_helpsteer_preferences_keep_what_was_shown(tmp_path):
  rows = [
    {
      "prompt": "c#",
      "response_1": "One.",
      "response_2": "Two.",
      "preference_strength": -2,
      "split": "train",
    },
    {
      "context": [{"role": "user", "content": "d"}],
      "response1": "One.",
      "response2": "Two.",
      "overall_preference": 1,
      "individual_preference": [
        {"score": 2, "reasoning": "Better.", "feedback1": "", "feedback2": ""},
        {"score": None},
        {"score": -1},
        {"score": 0},
      ],
    },
    {
      "context": [{"role": "user", "content": "e"}],
      "response1": "One.",
      "response2": "Two.",
      "overall_preference": 0,
      "individual_preference": [],
    },
  ]
  found = converted(tmp_path, "helpsteer", rows)
  assert [(one.rater, one.overall) for one in found] == [
    ("helpsteer2", -2),
    ("helpsteer3-1", 2),
    ("helpsteer3-3", -1),
    ("helpsteer3-4", 0),
    ("helpsteer3", 0),
  ]
  assert all(one.candidates[0].text == "One." for one in found)
  assert all(one.order_seed == 0 for one in found)
  assert found[1].task_id == found[2].task_id
  assert len({one.id for one in found}) == 5


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ({"prompt": "c#"}, "keys ['prompt'] are no row of HelpSteer, which has"),
    (scored("c", "A", 5, 1, 1, 1, 1), "'helpfulness' is 5, not a whole number from 0"),
    (scored("c", "A", [3, 4], 1, 1, 1, 1), "'helpfulness' is [3, 4], not a whole"),
    (scored("c", 3, 1, 1, 1, 1, 1), "'response' is 3, not a string"),
    (
      {
        "prompt": "c",
        "response_1": "A",
        "response_2": "B",
        "preference_strength": -100,
      },
      "preference_strength: -100 is not a whole number from -3 to 3",
    ),
    (
      {
        "context": [{"role": "user", "content": "e"}],
        "response1": "A",
        "response2": "B",
        "overall_preference": 0,
        "individual_preference": [{"score": 9}],
      },
      "individual_preference 1: 9 is not a whole number from -3 to 3",
    ),
  ],
)
def test_what_is_no_helpsteer(tmp_path, capsys, row, message):
  path = write_rows(tmp_path / "in.jsonl", [row])
  out = tmp_path / "out.jsonl"
  assert call("convert", "--from", "helpsteer", path, "--out", out) == 2
  told = capsys.readouterr().err
  assert f"{path}:1: {message}" in told
  assert told.count("\n") == 1


def test_the_choice_needs_helpfulness(tmp_path, capsys):
  rows = [scored("c", "A", 1, 1, 1, 1, 1), scored("c", "B", None, 1, 1, 1, 1)]
  path = write_rows(tmp_path / "in.jsonl", rows)
  flags = ("--out", tmp_path / "out.jsonl")
  assert call("convert", "--from", "helpsteer", path, *flags) == 2
  assert "'helpfulness' is missing" in capsys.readouterr().err


def test_nothing_to_convert_and_wrong_files(tmp_path, capsys):
  path = write_rows(tmp_path / "in.jsonl", [scored("c", "A", 1, 1, 1, 1, 1)])
  flags = ("convert", "--from", "helpsteer", path, "--out")
  assert call(*flags, tmp_path / "out.jsonl") == 2
  assert "no row makes a comparison" in capsys.readouterr().err
  assert call(*flags, path) == 2
  assert "exists; name a new file" in capsys.readouterr().err
  packed = ("convert", "--from", "helpsteer", "a.jsonl.gz", "--out", tmp_path / "x")
  assert call(*packed) == 2
  assert "`gunzip` it first" in capsys.readouterr().err
  assert call("convert", "--from", "hh", path, "--out", tmp_path / "x") == 2
  assert "invalid choice: 'hh'" in capsys.readouterr().err


def test_converted_files_merge_and_split(tmp_path, capsys):
  rows = [
    scored(f"Question {k}?", reply, value, 1, 1, 1, 1)
    for k in range(20)
    for reply, value in (("A.", 1), ("B.", 3))
  ]
  first = write_rows(tmp_path / "one.jsonl", rows)
  second = write_rows(tmp_path / "two.jsonl", rows[::-1])
  outs = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
  for path, out in zip((first, second), outs, strict=True):
    assert call("convert", "--from", "helpsteer", path, "--out", out) == 0
  assert call("merge", *outs, "--out", tmp_path / "all.jsonl") == 0
  sides = ("--out-train", tmp_path / "t.jsonl", "--out-heldout", tmp_path / "h.jsonl")
  assert call("split", tmp_path / "all.jsonl", *sides, "--heldout", "0.25") == 0
  heldout = [json.loads(x) for x in (tmp_path / "h.jsonl").read_text().splitlines()]
  # Both files ask the same: each question's two rows stay together.
  assert len(heldout) == 10
  assert len({row["task_id"] for row in heldout}) == 5


def test_all_that_is_no_pair_is_told_at_once(tmp_path, capsys):
  rows = [{"prompt": "A?", "chosen": "B"}, {"prompt": "A?"}] + [{"x": 1}] * 19
  path = write_rows(tmp_path / "in.jsonl", rows)
  assert call("convert", "--from", "pairwise", path, "--out", tmp_path / "a") == 2
  told = capsys.readouterr().err.splitlines()
  assert told[0].startswith(f"preferences: {path}:1: 'rejected' is missing")
  assert told[0].endswith("(21 problems in all)")
  assert [line.split(":")[1] for line in told[1:20]] == [str(k) for k in range(2, 21)]
  assert told[20:] == ["  and 1 more"]
