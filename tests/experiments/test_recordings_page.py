"""The table of real recordings, from items whose counts are known by hand."""

import json

import pytest

from configs import sft
from experiments import recordings_page
from tests.experiments import manifests


def item(task, condition, score, *, choices=(), gold="x", failed=None):
  kept = {"groups": {"task": task}, "condition": condition, "score": score}
  return kept | {"choices": list(choices), "gold": gold, "failed": failed}


def heard(task, right, wrong, **known):
  rights = [item(task, "audio", 1.0, **known) for _ in range(right)]
  return rights + [item(task, "audio", 0.0, **known) for _ in range(wrong)]


def silent(task, right, wrong, **known):
  return [{**row, "condition": "silence"} for row in heard(task, right, wrong, **known)]


FOUR = ("a", "b", "c", "d")


def test_tasks_kinds_and_all_beside_silence_and_chance():
  rows = [
    *heard("digit", 6, 2, choices=FOUR),
    *silent("digit", 3, 5, choices=FOUR),
    *heard("digit_string", 1, 1, gold="1 2"),
    *silent("digit_string", 0, 2, gold="1 2"),
    *heard("sound_event", 3, 7, choices=("a", "b")),
    *silent("sound_event", 0, 10, choices=("a", "b")),
  ]
  found = recordings_page.compared(rows)
  assert list(found) == ["digit", "digit_string", "sound_event", "digits", "all"]
  counts = {name: (entry["correct"], entry["n"]) for name, entry in found.items()}
  assert counts == {
    "digit": (6, 8),
    "digit_string": (1, 2),
    "sound_event": (3, 10),
    "digits": (7, 10),
    "all": (10, 20),
  }
  assert found["digits"]["silence"]["correct"] == 3
  assert found["digits"]["chance"] == pytest.approx((8 * 0.25 + 2 * 0.01) / 10)
  # Wilson: 6 of 8 is [0.41, 0.93], above 3 of 8; 3 of 10 is below chance.
  assert found["digit"]["beats_silence"] is True
  assert found["sound_event"]["beats_silence"] is False


def test_unread_and_failed_items_count_as_wrong_and_a_half_is_no_answer():
  rows = heard("digit", 1, 1, choices=FOUR)
  rows.append(item("digit", "audio", None, choices=FOUR))
  rows.append(item("digit", "audio", None, choices=FOUR, failed="too long"))
  entry = recordings_page.compared(rows)["all"]
  assert (entry["n"], entry["n_unparsed"], entry["n_failed"]) == (4, 1, 1)
  assert entry["accuracy"] == 0.25
  assert entry["silence"] is None
  assert entry["beats_silence"] is None


def test_speakers_and_recordists_are_told_apart():
  rows = heard("digit", 2, 1, choices=FOUR) + heard("sound_event", 2, 2, choices=FOUR)
  rows = [{**row, "id": str(n)} for n, row in enumerate(rows)]
  found = recordings_page.speakers(rows, {"0": ["ann"], "1": ["bob"], "2": ["ann"]})
  counts = {name: (entry["correct"], entry["n"]) for name, entry in found.items()}
  assert counts == {"ann": (1, 2), "bob": (1, 1)}
  # Rights of one recordist, wrongs of another: a draw has all, a half or nothing.
  two = {"3": ["x"], "4": ["x"], "5": ["y"], "6": ["y"]}
  assert recordings_page.over_recordists(rows, two) == {"low": 0.0, "high": 1.0}
  one = {key: ["x"] for key in two}
  assert recordings_page.over_recordists(rows, one) == {"low": 0.5, "high": 0.5}


def test_the_page_tells_counts_and_recipe(tmp_path):
  kept = [manifests.digit("ann", 1), manifests.digit("ann", 2)]
  kept.append(manifests.sound("r1", "rain"))
  rows = heard("digit", 2, 0, choices=FOUR) + heard("sound_event", 1, 0, choices=FOUR)
  rows = [{**row, "id": one["id"]} for row, one in zip(rows, kept, strict=True)]
  rows += [{**row, "condition": "silence", "score": 0.0} for row in rows]
  for name in ("before-heldout", "after-heldout", "after-rest"):
    folder = tmp_path / "evaluation" / name
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "recordings.items.jsonl").write_text(lines)
  counts = {"train": 5, "heldout": 2, "left_out": 1, "rest": 3, "dialogues": 40}
  (tmp_path / "counts.json").write_text(json.dumps(counts))
  (tmp_path / "heldout").mkdir()
  (tmp_path / "heldout" / "manifest.json").write_text(json.dumps(kept))
  text = recordings_page.write(tmp_path, sft.get_config("")).read_text()
  assert "5 rows about digits and sounds train, 2 are held out" in text
  assert "of 1 speakers of digits and 1 recordists" in text
  assert "1 rows with parts on both sides are left out" in text
  assert text.count("| digit | 2 | 100.0 % [34.2, 100.0] |") == 3
  assert text.count("| ann | 2 | 100.0 % [34.2, 100.0] |") == 1
  assert "95 % interval [100.0%, 100.0%]" in text
  assert '"trainable"' in text
  assert json.loads((tmp_path / "recordings.json").read_text())["rows"] == counts
