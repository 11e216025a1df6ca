"""Preference rows as comparisons: grouped, laid out, batched, skipped."""

import re

import numpy as np
import pytest

from stepaudio_jax.core import lengths
from stepaudio_jax.data import collate, features, pipeline, replies, schema
from stepaudio_jax.data.collate import Limits
from stepaudio_jax.data.comparisons import PairLimits, Pairs
from stepaudio_jax.data.corpus import Corpus
from stepaudio_jax.data.store import Store
from stepaudio_jax.text import tokenizer as tokenizers
from tests.data import rows

DIMENSIONS = ("overall", "naturalness", "coherence")
SAMPLES = 9_600


@pytest.fixture(scope="module")
def tokenizer():
  return tokenizers.load("tiny")


def candidates(first="x", second="y"):
  said = {
    "x": {"text": "Fast.", "think": "Six words.", "model": "sft"},
    "y": {"text": "It is slow.", "model": "sft"},
  }
  return [{"cid": name, **said[name]} for name in (first, second)]


def heard(question="How fast?"):
  audio = {"type": "audio", "path": "a.wav"}
  return [{"role": "human", "content": [audio, {"type": "text", "text": question}]}]


def fed(
  folder, made, tokenizer, limits=None, dimensions=DIMENSIONS, split="train", **known
):
  rows.write_tone(folder / "a.wav", SAMPLES)
  rows.write_rows(folder / "p.jsonl", made)
  options = {"preference": {"path": str(folder / "p.jsonl")}}
  corpus = Corpus({"preference": 1.0}, options, split, schema.Preference)
  store = Store(folder / "cache", "frames")
  features.fill_frames(store, corpus.clips(), rows.Encoder(), batch_size=2)
  return Pairs(
    corpus,
    store,
    tokenizer,
    limits or PairLimits(),
    dimensions=dimensions,
    encoder_width=rows.WIDTH,
    **known,
  )


def three_raters():
  """One comparison, the third rater saw it the other way round; and another one."""
  common = {"context": heard(), "candidates": candidates()}
  turned = {"context": heard(), "candidates": candidates("y", "x")}
  return [
    rows.pair_row(id="p1", overall=-2, dims={"naturalness": 1}, **common),
    rows.pair_row(id="p2", overall=0, dims={"coherence": -3}, scores={}, **common),
    rows.pair_row(
      id="p3",
      overall=3,
      dims={"naturalness": None},
      scores={"x": {"coherence": 2}, "y": {"coherence": 5}},
      **turned,
    ),
    rows.pair_row(id="q1", task_id="t2", overall=1, dims={}, scores={}, **common),
  ]


def test_raters_of_one_pair_are_one_comparison(tmp_path, tokenizer):
  feed = fed(tmp_path, three_raters(), tokenizer)
  assert feed.counts == (2,)
  assert [feed.entry(0, k).id for k in range(2)] == ["p1", "q1"]
  assert [row.id for row in feed.rows(0, 0)] == ["p1", "p2", "p3"]
  batch = feed.batch([[(0, 0)], [(0, 1)], []], 0)
  nan = np.nan
  # The third rater's +3 says that x, now the first one, is better: −3.
  expected = [
    [[-2, 1, nan], [0, nan, -3], [-3, nan, nan]],
    [[1, nan, nan], [nan] * 3, [nan] * 3],
    [[nan] * 3] * 3,
  ]
  np.testing.assert_array_equal(batch.label_BJC, np.asarray(expected, np.float32))
  scores = np.full((3, 2, 3, 3), nan, np.float32)
  scores[0, 0, 0, 1] = 4.5  # rater 1 on x: naturalness
  scores[0, 0, 2, 2], scores[0, 1, 2, 2] = 2, 5  # rater 3: coherence of x and of y
  np.testing.assert_array_equal(batch.score_B2JC, scores)
  assert not (batch.replies.count_BQ[2] > 0).any()


def test_raters_have_numbers_and_who_saw_the_other_order_is_known(tmp_path, tokenizer):
  made = [row | {"rater": f"r{place}"} for place, row in enumerate(three_raters())]
  made[3]["rater"] = "r1"
  feed = fed(tmp_path, made, tokenizer, rater_room=4)
  assert feed.raters == {"r0": 0, "r1": 1, "r2": 2}
  batch = feed.batch([[(0, 1)], [], [(0, 0)]], 0)
  assert batch.rater_BJ.tolist() == [[1, -1, -1], [-1] * 3, [0, 1, 2]]
  assert batch.turned_BJ.tolist() == [[False] * 3] * 2 + [[False, False, True]]
  plain = fed(tmp_path, made, tokenizer).batch([[(0, 0)]], 0)
  assert plain.rater_BJ is None


def test_a_row_is_the_context_and_each_reply_twice(tmp_path, tokenizer):
  feed = fed(tmp_path, three_raters(), tokenizer)
  batch = feed.batch([[(0, 0)]], 7)
  prompts, special = batch.replies.prompts, tokenizer.special
  patches = lengths.audio_tokens(SAMPLES)

  def turn(text):
    return [special.bot, *tokenizer.encode(text), special.eot]

  heard_T = [special.bot, *tokenizer.encode("human\n"), special.audio_start]
  heard_T += [special.audio_patch] * patches + [special.audio_end]
  heard_T += [*tokenizer.encode("How fast?"), special.eot]
  inside_T = prompts.segment_BT[0] == 1
  assert prompts.token_BT[0][inside_T].tolist() == heard_T
  assert not prompts.loss_BT.any()
  assert set(prompts.example_BT[0][inside_T]) == {7}
  start = heard_T.index(special.audio_patch)
  placed_T = prompts.audio_BT[0, start : start + patches]
  assert placed_T.tolist() == list(range(patches))
  opened = [special.bot, *tokenizer.encode("assistant\n<think>\n")]
  thought_T = [*opened, *tokenizer.encode("Six words.\n</think>\nFast."), special.eot]
  empty = [special.bot, *tokenizer.encode("assistant\n<think>\n\n</think>\n")]
  unthought_T = [*empty, *tokenizer.encode("It is slow."), special.eot]
  wanted = [turn("assistant\nFast."), thought_T, turn("assistant\nIt is slow.")]
  for branch, tokens in enumerate([*wanted, unthought_T]):
    count = batch.replies.count_BQ[0, branch]
    assert batch.replies.token_BQT[0, branch, :count].tolist() == tokens
    assert (batch.replies.token_BQT[0, branch, count:] == special.pad).all()


def test_any_number_of_replies_and_absent_ones(tokenizer):
  limits = Limits(8, 0, 0)
  prompts = collate.collate([[], []], limits, pad_id=0, encoder_width=rows.WIDTH)
  one = replies.views("Yes.", "Hm.", tokenizer, "p")
  room = {"replies": 3, "max_reply_tokens": 20, "pad_id": 0}
  laid = replies.laid(prompts, [[one, None, one], [None]], **room)
  long, short = len(one.thought_T), len(one.answer_T)
  assert laid.count_BQ.tolist() == [[short, long, 0, 0, short, long], [0] * 6]
  assert laid.token_BQT[0, 5, :long].tolist() == one.thought_T.tolist()
  with pytest.raises(ValueError, match=r"row 1 has 4 replies, there is room for 3"):
    replies.laid(prompts, [[], [None] * 4], **room)
  with pytest.raises(ValueError, match=rf"reply 1 of row 0 has {long} tokens.* is 9"):
    replies.laid(prompts, [[None, one]], **room | {"max_reply_tokens": 9})


@pytest.mark.parametrize(
  ("limits", "name", "why"),
  [
    (PairLimits(Limits(24, 1, 40), 96, 4), "long", r"33 tokens, max_tokens is 24"),
    (PairLimits(Limits(64, 0, 40), 96, 4), "long", r"1 audio chunks, max_clips is 0"),
    (PairLimits(Limits(64, 1, 40), 40, 4), "wordy", r"a reply of 64 tokens.* is 40"),
  ],
)
def test_what_does_not_fit_is_skipped_and_said(tmp_path, tokenizer, limits, name, why):
  wordy = candidates()
  wordy[0]["text"] = "Fast. " * 17
  made = {
    "short": rows.pair_row(id="short", dims={}),
    "long": rows.pair_row(id="long", task_id="t3", dims={}, context=heard("How? " * 9)),
    "wordy": rows.pair_row(id="wordy", task_id="t4", dims={}, candidates=wordy),
  }
  feed = fed(
    tmp_path, [made["short"], made[name]], tokenizer, limits, dimensions=("overall",)
  )
  assert feed.counts == (1,)
  assert feed.entry(0, 0).id == "short"
  (skipped,) = feed.skipped
  assert skipped.id == name
  assert re.search(why, skipped.why)


def test_more_raters_than_there_is_room_for_are_an_error(tmp_path, tokenizer):
  limits = PairLimits(max_raters=2)
  with pytest.raises(ValueError, match=r"'p1' has 3 raters, max_raters is 2"):
    fed(tmp_path, three_raters(), tokenizer, limits)


def test_one_task_with_two_contexts_is_an_error(tmp_path, tokenizer):
  made = [
    rows.pair_row(id="p1"),
    rows.pair_row(id="p2", context=[{"role": "human", "content": "How slow?"}]),
  ]
  with pytest.raises(ValueError, match=r"'p1' and 'p2' are of one task 't1'"):
    fed(tmp_path, made, tokenizer)


@pytest.mark.parametrize(
  "dimensions", [("overall", "naturalnes"), (), ("overall", "overall")]
)
def test_wrong_dimensions_list_the_choices(tmp_path, tokenizer, dimensions):
  choices = r"are \['coherence', 'naturalness', 'overall'\]"
  with pytest.raises(ValueError, match=choices):
    fed(tmp_path, [rows.pair_row()], tokenizer, dimensions=dimensions)


def test_the_pipeline_feeds_and_resumes_comparisons(tmp_path, tokenizer):
  made = [
    rows.pair_row(id=f"p{k}", task_id=f"t{k}", overall=k - 2, dims={}) for k in range(5)
  ]
  feed = fed(tmp_path, made, tokenizer, dimensions=("overall",))

  def stream():
    return pipeline.batches(feed, pipeline.mixture(feed, 0), batch_size=2)

  whole = stream()
  seen = [next(whole) for _ in range(4)]
  state = None
  begun = stream()
  for _ in range(2):
    next(begun)
  state = begun.get_state()
  resumed = stream()
  resumed.set_state(state)
  batch, ids = next(resumed)
  assert ids == seen[2][1]
  np.testing.assert_array_equal(batch.label_BJC, seen[2][0].label_BJC)
  labels = {name: int(name[1]) - 2 for name in ids}
  assert batch.label_BJC[:, 0, 0].tolist() == [labels[name] for name in ids]
  for one in (whole, begun, resumed):
    one.close()
