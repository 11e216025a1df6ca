"""The notebook on a smoke run whose replies are texts with known learned rewards."""

import json
import os
import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "listen_and_look.ipynb"
POLICIES = ("sft", "rlvr", "rlvr_kl", "rlhf")
TASK = "emotion"  # the notebook's own


def jsonl(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def comparison(smoke_run):
  """A held-out comparison with the reward model's rewards, by another program."""
  found = jsonl(smoke_run / "evaluation" / "rm" / "reward_model.items.jsonl")
  return next(row for row in found if f"-{TASK}-" in row["task_id"])


@pytest.fixture(scope="module")
def outputs(smoke_run, comparison, tmp_path_factory):
  """What the cells showed; RLHF's thought never closed, the others' replies did."""
  folder = tmp_path_factory.mktemp("doctored")
  for name in ("world", "cache", "sft", "rm"):
    (folder / name).symlink_to(smoke_run / name, target_is_directory=True)
  first, second = comparison["candidates"]
  said = {"sft": first, "rlvr": second, "rlvr_kl": first, "rlhf": None}
  for policy, reply in said.items():
    rows = jsonl(smoke_run / "evaluation" / policy / "world.items.jsonl")
    row = next(r for r in rows if r["id"] == comparison["task_id"])
    row |= {"think": "Hm", "reply": None, "raw": "Hm"}
    if reply:
      row |= {"think": reply["think"], "reply": reply["text"]}
      row |= {"raw": f"{reply['think']}\n</think>\n{reply['text']}"}
    row["scores"] = dict.fromkeys(row["scores"], 1.25 + POLICIES.index(policy))
    path = folder / "evaluation" / policy / "world.items.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(row) + "\n")
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  where = {"metadata": {"path": str(NOTEBOOK.parent)}}
  environment = os.environ | {"QUICKSTART": str(folder), "PYTHONPATH": str(ROOT)}
  client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where)
  client.execute(env=environment)
  return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def shown(outputs, kind):
  return [o["data"][kind] for o in outputs if kind in o.get("data", {})]


def test_notebook_is_kept_without_outputs():
  cells = nbformat.read(NOTEBOOK, as_version=4).cells
  code = [cell for cell in cells if cell.cell_type == "code"]
  assert code
  assert not any(cell.outputs or cell.execution_count for cell in code)


def test_sound_plays_and_pictures_are_drawn(outputs):
  sounds = [page for page in shown(outputs, "text/html") if "<audio" in page]
  assert sounds
  assert all("data:audio/wav;base64" in page for page in sounds)
  assert len(shown(outputs, "image/png")) == 2


def test_dialogue_and_replies_are_shown(outputs, comparison):
  asked, replies, _ = shown(outputs, "text/markdown")
  assert comparison["task_id"] in asked
  for reply in comparison["candidates"]:
    assert reply["text"] in replies
    assert reply["think"] in replies
  assert replies.count("(no reply)") == 1


def test_learned_rewards_are_those_of_the_evaluation_and_stand_beside_gold(
  outputs, comparison
):
  table = shown(outputs, "text/markdown")[-1].splitlines()[2:]
  rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table]
  assert {row[0].replace(" ", "_") for row in rows} == {*comparison["dimensions"]}
  for name, *numbers in rows:
    first, second = comparison["dimensions"][name.replace(" ", "_")]["reward"]
    learned, gold = numbers[::2], numbers[1::2]
    assert [float(x) for x in learned[:3]] == pytest.approx(
      [first, second, first], abs=0.006
    )
    assert learned[3] == "–"
    golds = ["–"] * 4 if name == "overall" else ["1.25", "2.25", "3.25", "4.25"]
    assert gold == golds
