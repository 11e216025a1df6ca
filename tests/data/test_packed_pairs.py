"""Packed comparisons of several processes: one shape, found without a word."""

import functools

import jax
import numpy as np
import pytest

from stepaudio_jax.data import features, loader, packing, pipeline, schema
from stepaudio_jax.data.comparisons import PairLimits, Pairs
from stepaudio_jax.data.contrasts import Choices
from stepaudio_jax.data.corpus import Corpus
from stepaudio_jax.data.store import Store
from stepaudio_jax.text import tokenizer as tokenizers
from tests.data import rows

BATCH, PACKS, STEPS = 8, 4, 5  # comparisons and packs of all processes


def test_what_packs_need_by_hand():
  """Rows of 10 tokens; prompts of 3, 2, 4, 1 tokens with 1, 2, 0, 3 clips.

  First pack: 3 + 5 = 8 and 3 + 2 = 5 of the first prompt, 2 + 3 = 5 of the second: 8
  fills a row, 5 and 5 another, with 1 + 2 clips. Second pack: 4 + 6 = 10 fills a row
  without a clip, 1 + 4 and 1 + 4 one with 3 + 3.
  """
  sizes = [np.asarray(x) for x in ([3, 2, 4, 1], [1, 2, 0, 3])]
  count_BQ = np.asarray([[5, 2], [3, 0], [6, 0], [4, 4]])
  assert packing.needed(*sizes, count_BQ, share=2, row_tokens=10) == (2, 6)
  # One pack: 10; 8; 5 and 5; 5 and 5. The third row has the 5s that come first,
  # 3 + 2 and 2 + 3 with 3 clips, the fourth 1 + 4 twice.
  assert packing.needed(*sizes, count_BQ, share=4, row_tokens=10) == (4, 6)
  assert packing.needed(*sizes, count_BQ, share=1, row_tokens=10) == (2, 6)
  # The last pack may have fewer, and none needs nothing.
  assert packing.needed(*sizes, count_BQ, share=3, row_tokens=10) == (3, 6)
  assert packing.needed(
    *(x[:0] for x in (*sizes, count_BQ)), share=2, row_tokens=9
  ) == (
    0,
    0,
  )


def judged(k):
  """A comparison of its own lengths, with k mod 3 clips."""
  clips = [{"type": "audio", "path": "a.wav"}] * (k % 3)
  text = {"type": "text", "text": "How fast? " * (1 + k * 5 % 7)}
  texts = ["Fast. " * (1 + k * 7 % 11), "It is slow. " * (1 + k * 3 % 5)]
  return rows.pair_row(
    id=f"p{k}",
    task_id=f"t{k}",
    context=[{"role": "human", "content": [*clips, text]}],
    candidates=[
      {"cid": cid, "text": text, "think": "Words. " * (k % 4) or None, "model": "m"}
      for cid, text in zip("xy", texts, strict=True)
    ],
    overall=2 if k % 2 else -1,
    scores={},
  )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
  """packs → comparisons of twelve kinds."""
  folder = tmp_path_factory.mktemp("pairs")
  rows.write_tone(folder / "a.wav", 9_600)
  rows.write_rows(folder / "p.jsonl", [judged(k) for k in range(12)])
  options = {"preference": {"path": str(folder / "p.jsonl")}}
  corpus = Corpus({"preference": 1.0}, options, "train", schema.Preference)
  store = Store(folder / "cache", "frames")
  features.fill_frames(store, corpus.clips(), rows.Encoder(), batch_size=2)

  def made(packs, dimensions=("overall", "naturalness"), **known):
    known |= {"dimensions": dimensions, "encoder_width": rows.WIDTH, "packs": packs}
    return Pairs(corpus, store, tokenizers.load("tiny"), PairLimits(), **known)

  return made


def feed_of(kind, pairs, packs, row_counts=()):
  if kind == "choices":
    alone = pairs(0, ("overall",))
    return Choices(alone, tokenizers.load("tiny"), packs, row_counts)
  return pairs(packs, row_counts=row_counts)


def read(feed, packs, process, processes, monkeypatch, position=None, steps=STEPS):
  """(batch, ids, position behind it) of so many steps, as that process reads them."""
  with monkeypatch.context() as patch:
    patch.setattr(jax, "process_count", lambda: processes)
    patch.setattr(jax, "process_index", lambda: process)
    batches = loader._compared(feed, 0, BATCH, packs)
  if position is not None:
    batches.set_state(position)
  found = [(*next(batches), batches.get_state()) for _ in range(steps)]
  batches.close()
  return found


def assert_equal(ours, theirs):
  for one, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["pairs", "choices"])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_have_the_packs_of_one(kind, processes, pairs, monkeypatch):
  whole = read(feed_of(kind, pairs, PACKS), PACKS, 0, 1, monkeypatch)
  packs = PACKS // processes
  feed = feed_of(kind, pairs, packs)
  parts = [read(feed, packs, k, processes, monkeypatch) for k in range(processes)]
  for step, (batch, ids, position) in enumerate(whole):
    shares = [part[step][0] for part in parts]
    assert {(*part[step][1],) for part in parts} == {(*ids,)}
    assert [part[step][2] for part in parts] == [position] * processes
    assert_equal(jax.tree.map(lambda *x: np.concatenate(x), *shares), batch)
  shapes = {batch.replies.batch.token_BT.shape[1:] for batch, *_ in whole}
  assert len(shapes) > 1  # the data decide them


def shape_of(batch):
  """Rows of a pack and clips of a row."""
  rows_of = batch.replies.batch
  return rows_of.token_BT.shape[1], rows_of.frames_BRUE.shape[2]


@pytest.mark.parametrize("kind", ["pairs", "choices"])
def test_alone_they_would_not_have(kind, pairs):
  """One process has short comparisons, the other long ones, two to a pack."""
  feed = feed_of(kind, pairs, 2)
  length = lambda k: feed.entry(0, k).tokens + feed.entry(0, k).reply_tokens  # noqa: E731
  order = [(0, k) for k in sorted(range(12), key=length)]
  short, long = [[place] for place in order[:4]], [[place] for place in order[-4:]]
  need = feed.need(order[:4] + order[-4:], 2)
  assert shape_of(feed.batch(short, 0)) != shape_of(feed.batch(long, 0))
  both = {shape_of(feed.batch(rows, 0, need)) for rows in (short, long)}
  assert both == {packing.room(*need)}
  with pytest.raises(ValueError, match=r"\d+ rows and \d+ clips a row are more than"):
    feed.batch(long, 0, (1, need[1]))


@pytest.mark.parametrize("kind", ["pairs", "choices"])
def test_declared_rows_are_all_there_are(kind, pairs, monkeypatch):
  """Every process has 8 of them; clips are a power of two."""
  feed = feed_of(kind, pairs, 2, row_counts=(8, 16))
  for process in range(2):
    found = [shape_of(x) for x, *_ in read(feed, 2, process, 2, monkeypatch)]
    assert {rows for rows, _ in found} == {8}
    assert {clips for _, clips in found} <= {2, 4, 8, 16}


@pytest.mark.parametrize("kind", ["pairs", "choices"])
def test_a_restart_goes_on_with_the_very_next_batch(kind, pairs, monkeypatch):
  """In as many processes, or in others."""
  feed = feed_of(kind, pairs, 2)
  first = read(feed, 2, 1, 2, monkeypatch)
  again = read(feed, 2, 1, 2, monkeypatch, position=first[1][2], steps=STEPS - 2)
  for (ours, *told), (theirs, *known) in zip(again, first[2:], strict=True):
    assert told == known
    assert_equal(ours, theirs)
  alone = feed_of(kind, pairs, PACKS)
  other = read(alone, PACKS, 0, 1, monkeypatch, position=first[1][2], steps=1)
  assert_equal(jax.tree.map(lambda x: x[2:], other[0][0]), first[2][0])


@pytest.mark.parametrize("kind", ["pairs", "choices"])
def test_one_that_has_nothing_left_has_the_others_shape(kind, pairs):
  """Twelve comparisons, eight a batch: the last four are all of the first process."""
  feed = feed_of(kind, pairs, 2)
  known = {"batch_size": BATCH, "process_count": 2}
  known["shape"] = functools.partial(feed.need, share=2)
  two = [
    [*pipeline.batches(feed, pipeline.once(feed), process_index=k, **known)]
    for k in range(2)
  ]
  assert [len(found) for found in two] == [2, 2]
  (first, ids), (second, others) = (found[-1] for found in two)
  assert ids == others == [feed.entry(0, k).id for k in range(8, 12)]
  assert_equal(*(jax.tree.map(np.shape, batch) for batch in (first, second)))
  assert (first.replies.batch.segment_BT > 0).any()
  assert not (second.replies.batch.segment_BT > 0).any()
