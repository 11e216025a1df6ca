"""Preference rows as chosen and rejected turns: the raters' mean, ties, the mask."""

import numpy as np
import pytest

from stepaudio_jax.data import schema
from stepaudio_jax.data.comparisons import PairLimits, Pairs
from stepaudio_jax.data.contrasts import Choices
from stepaudio_jax.data.corpus import Corpus
from stepaudio_jax.text import tokenizer as tokenizers
from tests.data import rows


@pytest.fixture(scope="module")
def tokenizer():
  return tokenizers.load("tiny")


def fed(folder, made, tokenizer, packs=0, dimensions=("overall",)):
  rows.write_rows(folder / "p.jsonl", made)
  options = {"preference": {"path": str(folder / "p.jsonl")}}
  pairs = Pairs(
    Corpus({"preference": 1.0}, options, "train", schema.Preference),
    None,
    tokenizer,
    PairLimits(),
    dimensions=dimensions,
    encoder_width=rows.WIDTH,
  )
  return Choices(pairs, tokenizer, packs)


def judged(task, overall, turned=False, **changes):
  """pair_row's replies x and y, seen in the other order where `turned`."""
  row = rows.pair_row(id=f"{task}-{overall}-{turned}", task_id=task, overall=overall)
  candidates = row["candidates"][::-1] if turned else row["candidates"]
  return row | {"candidates": candidates, "dims": {}, "scores": {}} | changes


def made():
  """Three tasks with two raters each."""
  return [
    judged("a", -1),  # x is better by 1
    judged("a", 3, turned=True),  # shown y, x: x is better by 3
    judged("b", -1),
    judged("b", 2),  # −1 + 2 = 1: y is better
    judged("c", 2),
    judged("c", 2, turned=True),  # 2 − 2 = 0: a tie
  ]


def test_the_raters_mean_chooses_and_ties_are_left_out(tmp_path, tokenizer):
  feed = fed(tmp_path, made(), tokenizer)
  assert feed.counts == (2,)
  assert [feed.entry(0, k).id for k in range(2)] == ["a--1-False", "b--1-False"]
  ((name, why),) = [(one.id, one.why) for one in feed.skipped]
  assert (name, why) == ("c-2-False", "a tie: the raters' choices add up to 0")
  batch = feed.batch([[(0, 0)], [(0, 1)], []], 0)
  said = [
    [
      tokenizer.decode(batch.replies.token_BQT[b, q][batch.spoken_BQT[b, q]].tolist())
      for q in range(2)
    ]
    for b in range(2)
  ]
  # What a policy speaks: the thought behind "<think>\n", or the answer alone behind an
  # empty thought.
  x, y = "Six words.\n</think>\nFast.", "Slow."
  assert [[t.replace("<|EOT|>", "") for t in pair] for pair in said] == [[x, y], [y, x]]
  assert not batch.spoken_BQT[2].any()


def test_the_turn_is_whole_and_ends_with_its_stop_token(tmp_path, tokenizer):
  batch = fed(tmp_path, made(), tokenizer).batch([[(0, 0)]], 0)
  special = tokenizer.special
  for q, opened in enumerate(("<think>\n", "<think>\n\n</think>\n")):
    count = batch.replies.count_BQ[0, q]
    token_T = batch.replies.token_BQT[0, q, :count]
    forced = [special.bot, *tokenizer.encode(f"assistant\n{opened}")]
    assert token_T[: len(forced)].tolist() == forced
    assert token_T[-1] == special.eot
    spoken_T = np.arange(batch.spoken_BQT.shape[-1])
    spoken_T = (spoken_T >= len(forced)) & (spoken_T < count)
    assert (batch.spoken_BQT[0, q] == spoken_T).all()


def test_packed_rows_hold_the_same_turns(tmp_path, tokenizer):
  plan = [[(0, 0)], [(0, 1)]]
  one = fed(tmp_path, made(), tokenizer).batch(plan, 0)
  two = fed(tmp_path, made(), tokenizer, packs=2).batch(plan, 0)
  assert two.spoken_BQT.shape == (2, 1, *one.spoken_BQT.shape[1:])
  assert (two.spoken_BQT.reshape(one.spoken_BQT.shape) == one.spoken_BQT).all()
  for pack in range(2):
    flat_X = two.replies.batch.token_BT[pack].reshape(-1)
    for q in range(2):
      inside_T = one.spoken_BQT[pack, q]
      slot_T = two.replies.slot_PBQT[pack, 0, q][inside_T]
      assert (flat_X[slot_T] == one.replies.token_BQT[pack, q][inside_T]).all()


def test_nothing_but_ties_is_an_error(tmp_path, tokenizer):
  with pytest.raises(ValueError, match=r"no comparison of \{'preference'\} is decided"):
    fed(tmp_path, [judged("a", 0)], tokenizer)


def test_only_the_overall_choice_chooses(tmp_path, tokenizer):
  made = [rows.pair_row()]
  with pytest.raises(ValueError, match=r"by 'overall', not by \('naturalness',\)"):
    fed(tmp_path, made, tokenizer, dimensions=("naturalness",))
