"""What is asked, kept and asked again, with speakers that answer by rule."""

import dataclasses
import json
import pathlib

import pytest
from etils import epath

from stepaudio_jax.core import processes
from stepaudio_jax.evals.parts import controls as controls_lib
from stepaudio_jax.evals.parts import pages, suite
from tests.evals import quiz, worlds

OPTIONS = {"batch_size": 2, "max_new_tokens": 5, "temperature": 0.7}


def low(talk, sample, budget):
  return "low"


def ask(folder, speaker, module=None, judge=None, limit=None, out="out", **options):
  return suite.evaluate(
    module or quiz.benchmark(),
    speaker,
    epath.Path(folder / "data"),
    out=epath.Path(folder / out),
    options=suite.Options(**OPTIONS | options),
    judge=judge,
    limit=limit,
  )


@pytest.fixture
def folder(tmp_path):
  quiz.write(tmp_path / "data")
  return tmp_path


def test_items_come_in_the_order_of_the_files_with_their_scores(folder):
  said = ["low", "low", "Hm", None, "low", "high", "low"]

  def say(talk, sample, budget):
    return said[int(talk.id[1:])]

  summary, items = ask(folder, quiz.Parrot(say))
  assert [row["id"] for row in items] == [f"q{n}" for n in range(7)]
  assert [row["score"] for row in items] == [1, 0, None, None, 1, 1, 1]
  assert [row["official"] for row in items] == [1, 0, 0, None, 1, 1, 1]
  assert [row["extracted"] for row in items][:3] == ["low", "low", None]
  json.dumps(items)
  # Right: q0, q4, q5, q6 of seven, of five with an answer.
  accuracy = summary["metrics"]["accuracy"]
  assert (accuracy["mean"], accuracy["answered"]) == (4 / 7, 4 / 5)
  assert (summary["n"], summary["n_failed"], summary["n_unparsed"]) == (7, 0, 2)
  assert summary["official"] == {"mean": 4 / 6, "n": 6, "left_out": 1}
  groups = summary["groups"]["parity"]
  means = {k: one["metrics"]["accuracy"]["mean"] for k, one in groups.items()}
  assert means == {"even": 3 / 4, "odd": 1 / 3}
  assert summary["chance"] == 0.5
  assert summary["settings"]["judge"] == {"kind": "rule"}


def test_a_run_that_was_killed_asks_only_for_what_is_missing(folder):
  controls = {"controls": ("silence", "swapped")}
  undisturbed = ask(folder, quiz.Parrot(low), out="whole", **controls)
  with pytest.raises(KeyboardInterrupt):
    ask(folder, quiz.Parrot(low, dies_after=6), **controls)
  again = quiz.Parrot(low)
  summary, items = ask(folder, again, **controls)
  # 4 batches answer the sound itself, 2 of the first control's: q0 to q3.
  assert len(again.asked) == 3 * 7 - 7 - 4
  assert again.asked[0] == ("q4", None)
  without = [
    [{**row, "messages": 0} for row in rows] for rows in (items, undisturbed[1])
  ]
  assert without[0] == without[1]  # the clips that were made lie in other folders
  assert summary == undisturbed[0]


def test_two_processes_share_the_windows_and_give_the_same(folder, monkeypatch):
  alone = ask(folder, quiz.Parrot(low), out="alone")
  shares = []
  for mine in (1, 0):
    monkeypatch.setattr(processes, "every", lambda all_, mine=mine: all_[mine::2])
    monkeypatch.setattr(processes, "index", lambda mine=mine: mine)
    speaker = quiz.Parrot(low)
    shares.append(speaker.asked)
    if mine:
      with pytest.raises(RuntimeError, match="4 replies are lacking"):
        ask(folder, speaker)
    else:
      together = ask(folder, speaker)
  assert [len(share) for share in shares] == [3, 4]
  assert together == alone


def test_more_controls_and_budgets_leave_what_is_there(folder):
  ask(folder, quiz.Parrot(low))
  more = quiz.Parrot(low)
  summary, items = ask(folder, more, controls=("silence",), budgets=(3,))
  assert len(more.asked) == 14
  assert more.asked[7:] == [(f"q{n}", 3) for n in range(7)]
  assert [row["condition"] for row in items].count("silence") == 7
  assert [one["budget"] for one in summary["budgets"]] == [3]


@pytest.mark.parametrize("changed", [{"temperature": 0.0}, {"seed": 1}, {"limit": 3}])
def test_other_settings_are_other_replies(folder, changed):
  ask(folder, quiz.Parrot(low))
  again = quiz.Parrot(low)
  ask(folder, again, **changed)
  assert len(again.asked) == changed.get("limit", 7)


def test_so_are_other_questions(folder):
  ask(folder, quiz.Parrot(low))
  quiz.write(folder / "data", ("high", *quiz.ANSWERS[1:]))
  again = quiz.Parrot(low)
  ask(folder, again)
  assert len(again.asked) == 7


def test_so_are_other_recordings_of_the_same_name(folder):
  controls = {"controls": ("silence", "swapped")}
  undisturbed, _ = ask(folder, quiz.Parrot(low), **controls)
  worlds.write_noise(folder / "data" / "2.wav", 4_200, seed=99)  # as long as before
  again = quiz.Parrot(low)
  summary, _ = ask(folder, again, **controls)
  # q2 with its sound and in silence, and those that hear it instead of their own.
  partners = controls_lib.partners(quiz.read(folder / "data"))
  hearing_it = [name for name, other in partners.items() if other.id == "q2"]
  asked = [name for name, _ in again.asked]
  assert sorted(asked) == sorted(["q2", "q2", *hearing_it])
  assert hearing_it
  assert summary == undisturbed


def test_a_recording_that_was_mended_is_asked_about_again(folder):
  whole = (folder / "data" / "2.wav").read_bytes()
  (folder / "data" / "2.wav").write_bytes(b"RIFF no sound")
  ask(folder, quiz.Parrot(low), controls=("silence",))
  (folder / "data" / "2.wav").write_bytes(whole)
  again = quiz.Parrot(low)
  summary, _ = ask(folder, again, controls=("silence",))
  assert again.asked == [("q2", None), ("q2", None)]
  assert summary["conditions"]["silence"]["n_failed"] == 0


def test_what_failed_is_asked_again_by_whichever_process(folder, monkeypatch):
  broken = quiz.Parrot(low)
  answers = broken.answers

  def out_of_order(*given):
    for rows in answers(*given):
      yield [row | {"failed": "no memory", "reply": None} for row in rows]

  broken.answers = out_of_order
  monkeypatch.setattr(processes, "index", lambda: 1)
  assert ask(folder, broken)[0]["n_failed"] == 7
  monkeypatch.setattr(processes, "index", lambda: 0)
  for asked in (7, 0):
    again = quiz.Parrot(low)
    assert ask(folder, again)[0]["n_failed"] == 0
    assert len(again.asked) == asked


def test_what_cannot_be_heard_fails_and_the_others_go_on(folder):
  (folder / "data" / "2.wav").write_bytes(b"RIFF no sound")
  summary, items = ask(folder, quiz.Parrot(low), controls=("silence",))
  failed = [row for row in items if row["failed"]]
  # The parrot needs no ears: only the silence, whose length is asked, fails.
  assert [(row["id"], row["condition"]) for row in failed] == [("q2", "silence")]
  assert "2.wav" in failed[0]["failed"]
  assert summary["conditions"]["silence"]["n_failed"] == 1


class Yes:
  """A judge that knows one word; it counts what it is asked."""

  def __init__(self, model="yes"):
    self.model, self.asked = model, []

  def describe(self):
    return {"kind": "test", "model": self.model}

  def answers(self, questions):
    self.asked += questions
    return ["yes" for _ in questions]


def test_judgements_are_kept_until_judge_or_wording_are_others(folder):
  judge = Yes()
  summary, items = ask(folder, quiz.Parrot(low), judge=judge)
  assert len(judge.asked) == 7
  assert {row["score"] for row in items} == {1}
  assert items[0]["detail"] == {"by": "judge", "judge": ["yes"]}
  told = {"kind": "test", "model": "yes", "templates": [quiz.WORDING.hash]}
  told["unanswered"] = 0
  assert summary["settings"]["judge"] == told
  for judge, module, asked in (
    (Yes(), None, 0),
    (Yes("another"), None, 7),
    (Yes(), quiz.benchmark(questions=reworded), 7),
  ):
    ask(folder, quiz.Parrot(None), module, judge)
    assert len(judge.asked) == asked


def test_a_judge_that_was_silent_is_asked_again(folder):
  judge = Yes()
  judge.answers = lambda questions: ["yes", None, *["yes"] * (len(questions) - 2)]
  summary, items = ask(folder, quiz.Parrot(low), judge=judge)
  assert summary["settings"]["judge"]["unanswered"] == 1
  assert "the judge left without a reply: 1.**" in page_of(summary)
  assert [row["detail"]["judge"] for row in items[:3]] == [["yes"], [None], ["yes"]]
  again = Yes()
  _, items = ask(folder, quiz.Parrot(None), judge=again)
  assert (len(again.asked), items[1]["detail"]["judge"]) == (1, ["yes"])


def test_the_process_whose_judge_was_silent_has_not_the_last_word(folder, monkeypatch):
  silent = Yes()
  silent.answers = lambda questions: [None for _ in questions]
  monkeypatch.setattr(processes, "index", lambda: 1)
  ask(folder, quiz.Parrot(low), judge=silent)
  monkeypatch.setattr(processes, "index", lambda: 0)
  for asked in (7, 0):
    judge = Yes()
    _, items = ask(folder, quiz.Parrot(None), judge=judge)
    assert len(judge.asked) == asked
    assert {tuple(row["detail"]["judge"]) for row in items} == {("yes",)}


def test_other_words_before_a_question_are_another_question(folder):
  for system, asked in (("Be strict.", 7), ("Be kind.", 7), ("Be strict.", 0)):
    wording = quiz.Template("Is {answer} right?", system)
    judge = Yes()
    module = quiz.benchmark(
      questions=lambda item, answer, wording=wording: [wording.ask(answer=answer)]
    )
    summary, _ = ask(folder, quiz.Parrot(low), module, judge)
    assert len(judge.asked) == asked
    assert summary["settings"]["judge"]["templates"] == [wording.hash]


def test_a_prompt_of_ours_is_told_by_its_hash(folder):
  summary, _ = ask(folder, quiz.Parrot(low), quiz.benchmark(PROMPT=quiz.WORDING))
  assert summary["settings"]["prompt"] == quiz.WORDING.hash
  assert "prompt" not in ask(folder, quiz.Parrot(low))[0]["settings"]


def test_of_several_samples_the_page_counts_replies(folder):
  for samples, wanted in ((1, "| all | 7 |"), (4, "| all | 7 × 4 |")):
    summary, _ = ask(folder, quiz.Parrot(low), samples=samples)
    assert wanted in page_of(summary)


def page_of(summary):
  return pages.page({"benchmark": "quiz", "checkpoint": "runs/a"} | summary)


def test_names_of_groups_are_cells_and_what_failed_shows(folder):
  (folder / "data" / "3.wav").write_bytes(b"RIFF no sound")
  items = quiz.read(folder / "data")

  def read(_):
    odd = {"kind": "a|b <i>"}
    return [dataclasses.replace(item, groups=odd) for item in items]

  module = quiz.benchmark(read=read)
  summary, _ = ask(
    folder, quiz.Parrot(low), module, controls=("silence",), budgets=(3,)
  )
  text = pages.page({"benchmark": "quiz", "checkpoint": "runs/a"} | summary)
  assert "| a\\|b &lt;i> | 7 |" in text
  assert "| silence | a\\|b &lt;i> | 0 | 1 |" in text
  assert "| 3 | 2.0 | 0 | 0 |" in text


def test_a_control_that_is_impossible_shows_before_anything(folder):
  speaker = quiz.Parrot(low)
  with pytest.raises(ValueError, match="swapping needs"):
    ask(folder, speaker, limit=1, controls=("swapped",))
  assert speaker.asked == []


def reworded(item, answer):
  return [quiz.Template("Right? {answer}").ask(answer=answer)]


def test_a_judge_that_is_lacking_or_of_no_use_shows_before_anything(folder):
  lacking = "by judge, not by rule; name a judge: a folder with a checkpoint, or 'http"
  for judges, judge, why in (
    (("judge",), None, lacking),
    (("rule",), Yes(), "by rule, not by judge$"),
  ):
    with pytest.raises(ValueError, match=f"benchmark 'quiz' is scored {why}"):
      ask(folder, None, quiz.benchmark(JUDGES=judges), judge)


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"controls": ("noise",)}, r"\['noise'\]; the choices are \['silence'"),
    ({"budgets": (-1,)}, "budgets"),
    ({"budgets": (3, 5, 3)}, r"budgets=\(3, 5, 3\): one is there twice"),
    ({"controls": ("silence", "silence")}, "controls=.*one is there twice"),
    ({"samples": 0}, "samples=0"),
    ({"samples": 2, "temperature": 0}, "samples=2 at temperature 0 are one reply"),
  ],
)
def test_impossible_options(wrong, message):
  with pytest.raises(ValueError, match=message):
    suite.Options(**OPTIONS | wrong)


def test_a_reply_with_other_ends_of_lines_survives_the_journal(folder):
  odd = "low\u2028\x85\r\nhigh"
  _, items = ask(folder, quiz.Parrot(lambda *_: odd))
  _, items = ask(folder, quiz.Parrot(None))
  assert {row["reply"] for row in items} == {odd}


def test_a_kill_between_writes_leaves_no_torn_row(folder):
  ask(folder, quiz.Parrot(low))
  (parts,) = pathlib.Path(folder / "out" / "journal").glob("*/replies/*")
  names = sorted(path.name for path in parts.iterdir())
  assert names == [f"000-00000{n}.jsonl" for n in range(4)]
  (parts / "000-000009.jsonl.abc.partial").write_text('{"id": "q0", "cond')
  again = quiz.Parrot(None)
  ask(folder, again)
  assert again.asked == []
