"""The benchmark of reward models, from a checkpoint to its files."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import checkpoint, evaluate, workdirs
from stepaudio_jax.audio import pitch
from stepaudio_jax.core.types import TrainState
from stepaudio_jax.data.world import gold, raters
from stepaudio_jax.evals import reward_model
from stepaudio_jax.models.heads import init_rewards
from tests.evals import worlds
from tests.test_reward_model import write_preferences

DIMENSIONS = ("overall", "naturalness")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A reward model of random weights in rm/, preferences beside it."""
  folder = tmp_path_factory.mktemp("rm")
  write_preferences(folder, "heldout", pairs=5)
  made = worlds.model()
  heads = init_rewards(jax.random.key(0), worlds.SIZE.width, 2)
  params = made.params | {"rewards": heads}
  key = jax.random.key_data(jax.random.key(0))
  saved = checkpoint.Checkpoints(folder / "rm", every_steps=1, keep=1)
  saved.save(3, TrainState(params, {}, {}, jnp.int32(3), key), {})
  saved.close()
  workdirs.describe(folder / "rm", made.size, made.tokenizer)
  workdirs.describe_rewards(folder / "rm", DIMENSIONS, ("naturalness",))
  return folder


@pytest.fixture(scope="module")
def summary(folder):
  return run(folder, folder / "out")


@pytest.fixture(scope="module")
def other_sounds(folder, tmp_path_factory):
  """The same questions about two sounds: (folder, its items)."""
  changed = tmp_path_factory.mktemp("sounds")
  rows = (folder / "preferences-heldout.jsonl").read_text().splitlines()
  rows = [json.loads(row) for row in rows]
  for seed, name in enumerate(("a.wav", "b.wav")):
    worlds.write_noise(changed / name, 8_000 + 1_000 * seed, seed)
  for row in rows:
    if row["task_id"] in ("t0", "t3"):
      row["context"][0]["content"][0]["path"] = "b.wav"
  worlds.write_jsonl(changed / "preferences-heldout.jsonl", rows)
  (changed / "rm").symlink_to(folder / "rm")
  run(changed, changed / "out", plots=True)
  return changed, items_of(changed / "out")


def run(folder, out, *, plots=False, **options):
  with pytest.MonkeyPatch.context() as patched:
    # What it does is tested with the controls; here it would cost seconds.
    patched.setattr(pitch, "flattened", lambda samples_N: 0.5 * samples_N)
    if not plots:
      patched.setattr(reward_model, "plots", lambda summary: {})
    return evaluate.run(
      checkpoint=folder / "rm",
      benchmarks=["reward_model"],
      data=folder,
      out=out,
      **{"cache": folder / "cache", "batch_size": 2} | options,
    )["reward_model"]


def items_of(out):
  lines = (out / "reward_model.items.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_the_summary_follows_from_the_items(summary, folder):
  written = json.loads((folder / "out" / "reward_model.json").read_text())
  assert written == summary
  assert (summary["comparisons"], summary["raters"]) == (5, 2)
  assert summary["simulated"]
  items = items_of(folder / "out")
  assert len(items) == 5
  for name, entry in summary["dimensions"].items():
    right = []
    for item in items:
      judged = item["dimensions"][name]
      gap = judged["reward"][1] - judged["reward"][0]
      right += [(gap > 0) == (label > 0) for label in judged["labels"] if label]
    assert entry["accuracy"] == pytest.approx(np.mean(right))
    assert entry["n"] == len(right) == (10 if name == "overall" else 5)
  for item in items:  # both have gaps of twice the label; r1 has left it out
    judged = item["dimensions"]["naturalness"]
    (first, _), (second, _) = judged["scores"]
    assert second - first == 2 * judged["labels"][0] == np.diff(judged["marks"])[0]
    assert item["turns"] == 1
  naturalness = summary["dimensions"]["naturalness"]
  assert naturalness["ceiling"]["accuracy"] == 1.0  # raters that make no mistakes
  assert summary["dimensions"]["overall"]["ceiling"] is None  # gold of one dimension
  thought, answer = (
    items[0]["dimensions"][name]["tokens"] for name in ("naturalness", "overall")
  )
  assert thought[0] > answer[0]


def test_silence_is_another_sound_and_batches_change_nothing(summary, folder):
  items = items_of(folder / "out")
  judged = items[0]["dimensions"]["overall"]
  assert judged["reward"] != judged["silence"]
  run(folder, folder / "again", batch_size=3, limit=4, controls=["silence"])
  for item, other in zip(items[:4], items_of(folder / "again"), strict=True):
    for name in DIMENSIONS:
      np.testing.assert_allclose(
        item["dimensions"][name]["reward"],
        other["dimensions"][name]["reward"],
        atol=1e-5,
      )


def test_table_and_plot_are_there(summary, folder):
  page = (folder / "out" / "reward_model.md").read_text()
  assert "simulated" in page
  accuracy = 100 * summary["dimensions"]["overall"]["accuracy"]
  assert re.search(rf"\| overall \| 10 \| 0 \| {accuracy:.1f} %", page)
  picture = (folder / "out" / "reward_model.png").read_bytes()
  assert picture.startswith(b"\x89PNG")


def test_a_swapped_dialogue_is_heard_with_another_ones_clip(other_sounds, folder):
  changed, items = other_sounds
  rows = (changed / "preferences-heldout.jsonl").read_text().replace("a.wav", "c.wav")
  rows = rows.replace("b.wav", "a.wav").replace("c.wav", "b.wav")
  turned = changed / "turned"
  turned.mkdir()
  (turned / "preferences-heldout.jsonl").write_text(rows)
  for name in ("a.wav", "b.wav", "rm"):
    (turned / name).symlink_to(changed / name)
  run(turned, turned / "out", controls=["silence"])
  for item, other in zip(items, items_of(turned / "out"), strict=True):
    for name in DIMENSIONS:
      swapped = item["dimensions"][name]["swapped"]
      assert swapped != item["dimensions"][name]["reward"]
      np.testing.assert_allclose(
        swapped, other["dimensions"][name]["reward"], atol=1e-5
      )
      assert "swapped" not in other["dimensions"][name]
  kept = (changed / "cache" / "clips").iterdir()
  assert {path.name.split("-")[0] for path in kept} == {"flat"}


def test_the_report_has_all_that_the_data_allow(other_sounds):
  changed, _ = other_sounds
  page = (changed / "out" / "reward_model.md").read_text()
  assert re.findall("^## (.*)$", page, re.M) == [
    "By turns",
    "Calibration",
    "Rank correlations",
    "With other sound",
    "Length and place",
    "Between dimensions",
  ]
  written = json.loads((changed / "out" / "reward_model.json").read_text())
  assert written["settings"]["controls"] == ["silence", "swapped", "flat"]
  drop = written["dimensions"]["overall"]["sound"]["silence"]["drop"]
  over = written["dimensions"]["overall"]["over_silence"]
  assert drop["value"] == pytest.approx(over["mean"])
  for name in ("reliability", "sound"):
    picture = (changed / "out" / f"reward_model.{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_replies_that_change_places_change_the_sign_and_nothing_else(
  summary, folder, tmp_path
):
  rows = (folder / "preferences-heldout.jsonl").read_text().splitlines()
  rows = [json.loads(row) for row in rows]
  for row in rows:
    row["candidates"] = row["candidates"][::-1]
    row["overall"] = -row["overall"]
    row["dims"] = {k: v if v is None else -v for k, v in row["dims"].items()}
  worlds.write_jsonl(tmp_path / "preferences-heldout.jsonl", rows)
  for name in ("a.wav", "rm"):
    (tmp_path / name).symlink_to(folder / name)
  turned = run(tmp_path, tmp_path / "out", controls=["silence"])
  for item, other in zip(
    items_of(folder / "out"), items_of(tmp_path / "out"), strict=True
  ):
    for name in DIMENSIONS:
      before, after = (one["dimensions"][name] for one in (item, other))
      assert after["reward"] == before["reward"][::-1]
      assert after["scores"] == before["scores"][::-1]
      assert after["marks"] == (before["marks"] and before["marks"][::-1])
  accuracy = summary["dimensions"]["overall"]["accuracy"]
  assert turned["dimensions"]["overall"]["accuracy"] == accuracy


def test_sampled_replies_are_scored_like_those_of_comparisons(
  summary, folder, tmp_path
):
  items = items_of(folder / "out")
  rows = (folder / "preferences-heldout.jsonl").read_text().splitlines()
  contexts = {row["task_id"]: row["context"] for row in map(json.loads, rows)}
  worlds.write_jsonl(
    tmp_path / "dialogues-heldout.jsonl",
    [{"id": name, "messages": context} for name, context in contexts.items()],
  )
  truths = [worlds.truth(name, "pitch", "low", worlds.PITCHES) for name in contexts]
  worlds.write_jsonl(tmp_path / "truth-heldout.jsonl", truths)
  sampled = [
    {
      "prompt_id": item["task_id"],
      "dialogue_id": item["task_id"],
      "text": f"{one['think']}\n</think>\n{one['text']}",
      "think": one["think"],
      "answer": one["text"],
    }
    for item in items
    for one in item["candidates"]
  ]
  path = worlds.write_jsonl(tmp_path / "rollouts.jsonl", sampled)
  for name in ("a.wav", "rm", "preferences-heldout.jsonl"):
    (tmp_path / name).symlink_to(folder / name)
  rows = [
    {"id": item["id"], "ab": {"value": 1.0}, "ba": {"value": None}}
    for item in items[:3]
  ]
  verdicts = worlds.write_jsonl(tmp_path / "verdicts.jsonl", rows)
  options = {"controls": ["silence"], "rollouts": str(path)}
  told = run(tmp_path, tmp_path / "out", verdicts=str(verdicts), **options)
  judge = told["order"]["judge"]
  assert (judge["of"], judge["pairs"], judge["unread"]) == (str(verdicts), 3, 3)
  page = (tmp_path / "out" / "reward_model.md").read_text()
  assert "## A judge in both orders" in page
  assert "3 pairs: 6 calls, 3 unread" in page
  assert summary["order"] == {"heads": "exact", "judge": None}
  told = told["best_of_n"]
  assert told["of"] == str(path)
  one, two = told["curve"]["points"]
  rewards = np.asarray([item["dimensions"]["overall"]["reward"] for item in items])
  assert one["proxy"]["value"] == pytest.approx(rewards.mean(), abs=1e-5)
  assert two["proxy"]["value"] == pytest.approx(rewards.max(axis=1).mean(), abs=1e-5)
  marks = [gold.score(truths[0], row["text"]) for row in sampled]
  mean = np.mean([[one[d] * raters.WEIGHTS[d] / 6.5 for d in one] for one in marks], 0)
  assert one["gold"]["value"] == pytest.approx(mean.sum())
  overall = [sum(one[d] * raters.WEIGHTS[d] / 6.5 for d in one) for one in marks]
  picked = np.reshape(overall, (5, 2))[np.arange(5), rewards.argmax(axis=1)]
  assert two["gold"]["value"] == pytest.approx(picked.mean())
  assert summary["best_of_n"]["of"] == "candidates of the comparisons"


def test_a_control_that_the_data_do_not_allow(summary, folder, tmp_path):
  # All dialogues share one clip: nothing can be swapped.
  assert summary["settings"]["controls"] == ["silence", "flat"]
  with pytest.raises(ValueError, match="swapping needs other clips than those of"):
    run(folder, tmp_path / "out", controls=["silence", "swapped"])
  with pytest.raises(ValueError, match=r"unknown controls \['loud'\]; the choices are"):
    run(folder, tmp_path / "out", controls=["silence", "loud"])
  with pytest.raises(ValueError, match=r"controls=\('flat',\) lack 'silence'"):
    run(folder, tmp_path / "out", controls=["flat"])


def test_people_have_no_gold_and_so_no_ceiling(folder, tmp_path):
  write_preferences(tmp_path, "heldout", pairs=2, gold=False)
  (tmp_path / "rm").symlink_to(folder / "rm")
  summary = run(tmp_path, tmp_path / "out", controls=["silence"])
  assert not summary["simulated"]
  assert all(e["ceiling"] is None for e in summary["dimensions"].values())
  assert "– | – |" in (tmp_path / "out" / "reward_model.md").read_text()


def test_gold_gaps_by_hand():
  rated = dict.fromkeys(gold.DIMENSIONS, 3.0)
  better = rated | {"correctness": 5.0}
  pair = [dataclasses.make_dataclass("C", ["cid"])(cid) for cid in "ab"]
  row = dataclasses.make_dataclass("R", ["gold", "candidates"])
  first_better = row({"a": better, "b": rated}, pair)
  assert reward_model.gold_gap(first_better, "correctness") == -2.0
  # 2 points at weight 2 among weights that add up to 6.5
  assert sum(raters.WEIGHTS.values()) == 6.5
  assert reward_model.gold_gap(first_better, "overall") == pytest.approx(-4 / 6.5)
  overall = reward_model.gold_marks(first_better, "overall")
  assert overall == pytest.approx([3 + 4 / 6.5, 3.0])
  assert reward_model.gold_marks(first_better, "correctness") == [5.0, 3.0]
  assert reward_model.gold_marks(first_better, "warmth") is None
  assert reward_model.gold_gap(first_better, "warmth") is None
  assert reward_model.gold_gap(row(None, pair), "overall") is None


def test_options_and_checkpoints_that_do_not_belong_are_errors(folder):
  with pytest.raises(ValueError, match=r"no option \['temperature'\]; it has \['batch"):
    run(folder, folder / "out", temperature=0.5)
  with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
    run(folder, folder / "out", batch_size=0)
  with pytest.raises(ValueError, match="limit=0 must be at least 1"):
    run(folder, folder / "out", limit=0)
  with pytest.raises(ValueError, match="a reward model, which writes no replies"):
    evaluate.run(checkpoint=folder / "rm", benchmarks=["world"], data=folder)
