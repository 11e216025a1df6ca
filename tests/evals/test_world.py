"""Scoring by hand counts, with a listener in the model's place that hears exactly."""

import json

import numpy as np
import pytest

from stepaudio_jax import sampling
from stepaudio_jax.core.types import Rollout
from stepaudio_jax.evals import world
from stepaudio_jax.evals.parts import hearing, intervals, prompts
from stepaudio_jax.evals.world import Options
from tests.evals import worlds

OPTIONS = Options(batch_size=4, max_new_tokens=24, temperature=0.0)
SAID = {  # what the listener says about each clip
  "c0": "A dark voice.\n</think>\nThe voice is low.",  # right
  "c1": "A bright voice.\n</think>\nThe voice is high.",  # right
  "c2": "A bright voice and no end",  # high, but the thought never closes
  "c3": "\n</think>\nIt is low.",  # wrong: middle
}
IN_SILENCE = "A bright voice.\n</think>\nThe voice is high."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return worlds.write_world(tmp_path_factory.mktemp("world") / "w")


class Listener:
  """In the place of sampling.sample; knows clips by their frames, tells of the last."""

  def __init__(self, model, folder):
    talks = prompts.corpus(folder / "dialogues-heldout.jsonl")
    frames = hearing.store(model.params, folder / "cache")
    hearing.fill(frames, talks.clips(), model.params, model.size)
    self.known = {
      frames.read(key)[0].rows.tobytes(): SAID[audio.source[-6:-4]]
      for key, audio in talks.clips().items()
    }
    self.tokenizer = model.tokenizer
    self.shapes = set()

  def __call__(self, params, batch, rng, *, max_new_tokens, stop_ids, pad_id, **_):
    self.shapes.add(batch.token_BT.shape)
    rows = len(batch.token_BT)
    token_BT = np.full((rows, max_new_tokens), pad_id, np.int32)
    mask_BT = np.zeros(token_BT.shape, bool)
    for row in range(rows):
      if not batch.segment_BT[row].any():
        continue
      ids = [*self.tokenizer.encode(self.said(batch, row)), stop_ids[0]]
      token_BT[row, : len(ids)], mask_BT[row, : len(ids)] = ids, True
    zero_BT = np.zeros(token_BT.shape)
    return Rollout(token_BT, zero_BT, mask_BT, mask_BT.sum(1), np.zeros(rows, bool))

  def said(self, batch, row):
    clip = int((batch.frame_count_BR[row] > 0).sum()) - 1
    count = batch.frame_count_BR[row, clip]
    frames = np.ascontiguousarray(batch.frames_BRUE[row, clip, :count])
    return self.known.get(frames.tobytes(), IN_SILENCE)


@pytest.fixture(scope="module")
def scored(folder):
  model = worlds.model()
  listener = Listener(model, folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sampling, "sample", listener)
    summary, items = world.evaluate(
      model, folder, cache=folder / "cache", options=OPTIONS
    )
  return summary, items, listener


def entry(correct, n, n_failed, n_unparsed):
  low, high = intervals.wilson(correct, n)
  answered = n - n_failed - n_unparsed
  return {
    "n": n,
    "n_failed": n_failed,
    "n_unparsed": n_unparsed,
    "correct": correct,
    "accuracy": correct / n,
    "low": low,
    "high": high,
    "accuracy_answered": correct / answered if answered else None,
  }


def test_accuracies_equal_counts_by_hand(scored):
  tasks = scored[0]["tasks"]
  assert list(tasks) == ["pitch", "digits"]
  # Pitch, five items: c0 and c1 right, c2 unclosed, c3 wrong, one too long to ask.
  # In silence always "high": right for c1 and c2, wrong for c0 and c3.
  assert tasks["pitch"] == {
    **entry(2, 5, n_failed=1, n_unparsed=1),
    "chance": pytest.approx(1 / 3),
    "silence": entry(2, 5, n_failed=1, n_unparsed=0),
    "beats_silence": False,
  }
  # Digits: asked after the clip c0; "low" and "high" name none. Two of ten each.
  assert tasks["digits"] == {
    **entry(0, 1, n_failed=0, n_unparsed=1),
    "chance": pytest.approx(0.01),
    "silence": entry(0, 1, n_failed=0, n_unparsed=1),
    "beats_silence": False,
  }
  assert scored[0]["overall"] == {
    **entry(2, 6, n_failed=1, n_unparsed=2),
    "chance": pytest.approx((5 / 3 + 0.01) / 6),
    "silence": entry(2, 6, n_failed=1, n_unparsed=1),
    "beats_silence": False,
  }


def test_dimension_means_equal_counts_by_hand(scored):
  # Correctness of the five that were asked: 5, 5, unclosed 1, wrong 1, unreadable 2;
  # in silence 1, 5, 5, 1, 2.
  found = scored[0]["dimensions"]["correctness"]
  assert (found["mean"], found["n"]) == (14 / 5, 5)
  assert (found["silence"]["mean"], found["silence"]["n"]) == (14 / 5, 5)
  # Evidence: "dark", "bright" and "voice" are right for c0 and c1: 5 each; the unclosed
  # thought scores 1, no thought 2, and the one about digits names a feature only: 2.
  assert scored[0]["dimensions"]["acoustic_grounding"]["mean"] == 15 / 5
  assert scored[0]["simulated"] is True


def test_items_tell_what_was_asked_and_said(scored, folder):
  _, items, _ = scored
  assert len(items) == 2 * 6
  by_name = {(item["id"], item["condition"]): item for item in items}
  heard, silent = (by_name["p-c0", condition] for condition in ("audio", "silence"))
  assert (heard["think"], heard["reply"]) == ("A dark voice.", "The voice is low.")
  assert (heard["correct"], silent["correct"]) == (True, False)
  assert heard["raw"] == SAID["c0"]
  assert heard["messages"] == silent["messages"]
  path = heard["messages"][-1]["content"][0]["path"]
  assert path == str(folder / "speech" / "c0.wav")
  unclosed = by_name["p-c2", "audio"]
  assert (unclosed["reply"], unclosed["correct"]) == (None, None)
  failed = by_name["p-long", "audio"]
  assert "room for 488" in failed["failed"]  # 512 positions, 24 of them for the reply
  assert failed["raw"] is None
  assert {len(item) for item in items} == {12}
  json.dumps(items, allow_nan=False)


def test_history_is_kept_without_its_thought(scored):
  _, items, listener = scored
  (item,) = [i for i in items if (i["id"], i["condition"]) == ("d-0", "audio")]
  roles = [message["role"] for message in item["messages"]]
  assert roles == ["human", "assistant", "human"]
  assert all("think" not in message for message in item["messages"])
  assert item["messages"][1]["content"][0]["text"] == "It is high."
  assert item["raw"] == SAID["c0"]  # heard last, after c1
  assert len(listener.shapes) == 1  # five prompts and their silence: one program


def test_limit_takes_the_first_and_truth_must_be_there(folder):
  model = worlds.model()
  talks = prompts.corpus(folder / "dialogues-heldout.jsonl")
  assert [talk.id for talk in prompts.dialogues(talks, 2)] == ["p-c0", "p-c1"]
  with pytest.raises(ValueError, match="limit=0"):
    prompts.dialogues(talks, 0)
  shorter = folder.parent / "shorter"
  shorter.mkdir()
  (shorter / "speech").symlink_to(folder / "speech")
  rows = (folder / "dialogues-heldout.jsonl").read_text()
  (shorter / "dialogues-heldout.jsonl").write_text(rows)
  truths = (folder / "truth-heldout.jsonl").read_text().splitlines(keepends=True)
  kept = [line for line in truths if "p-c3" not in line]
  (shorter / "truth-heldout.jsonl").write_text("".join(kept))
  with pytest.raises(ValueError, match=r"lacks 1 dialogues: \['p-c3'\]"):
    world.evaluate(model, shorter, cache=folder / "cache", options=OPTIONS)


def test_the_control_can_be_left_out(scored):
  """What is heard stays the same; tables show that there is no control."""
  summary, items, _ = scored
  heard = [row for row in items if row["condition"] == "audio"]
  truths = [{"task": row["task"], "answer": row["answer"]} for row in heard]
  alone = world.summary(heard, truths)
  for task, entry in alone["tasks"].items():
    assert entry["silence"] is None
    assert entry["beats_silence"] is None
    assert entry["correct"] == summary["tasks"][task]["correct"]
  page = world.page({**alone, "settings": {}, "checkpoint": "x", "benchmark": "world"})
  assert "| – |" in page
  world.plot(alone)


def test_several_samples_of_an_item_are_no_items():
  with pytest.raises(ValueError, match="samples=4: world scores one reply"):
    world.Options(4, 8, 0.0, samples=4)
