"""Rows by hand, exact resume, sharding, mixing, packing, and nothing lost."""

import contextlib
import dataclasses
import itertools
import json

import numpy as np
import pytest

from stepaudio_jax.core.types import Batch
from stepaudio_jax.data import examples as examples_lib
from stepaudio_jax.data import features, hearing, pipeline, schema
from stepaudio_jax.data.collate import Example, Limits, collate
from stepaudio_jax.data.corpus import Corpus
from stepaudio_jax.data.examples import Examples, Rendering
from stepaudio_jax.data.store import Store
from stepaudio_jax.text import chat
from stepaudio_jax.text import tokenizer as tokenizer_lib
from stepaudio_jax.text.chat import Span
from tests.data.rows import (
  WIDTH,
  Encoder,
  audio_row,
  text_row,
  write_rows,
  write_tone,
)

PAD = 99


def fields(batch) -> dict[str, np.ndarray]:
  return {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}


def assert_same(left, right) -> None:
  for name, value in fields(left).items():
    np.testing.assert_array_equal(value, getattr(right, name), err_msg=name)


class TestCollate:
  # Row 0: a text example of three tokens, then one whose tokens 1 to 2 are audio (three
  # frames make (3 + 1) // 2 = 2 tokens). Row 1: two chunks of one frame, a token each.
  FRAMES = np.arange(6, dtype=np.float32).reshape(3, 2) + 1
  TEXT = Example("t", 1, np.array([5, 6, 7]), np.array([False, True, True]), ())
  HEARD = Example(
    "h",
    0,
    np.array([8, 50, 50, 9]),
    np.array([False, False, False, True]),
    (Span(0, 1, 2),),
    (FRAMES,),
  )
  TWICE = Example(
    "w",
    0,
    np.array([50, 1, 50]),
    np.array([False, True, False]),
    (Span(0, 0, 1), Span(1, 2, 1)),
    (FRAMES[:1], FRAMES[1:2]),
  )
  LIMITS = Limits(max_tokens=8, max_clips=2, max_clip_frames=5)  # A = (5 + 1) // 2 = 3

  def test_two_rows_by_hand(self):
    rows = [[self.TEXT, self.HEARD], [self.TWICE]]
    batch = collate(rows, self.LIMITS, pad_id=PAD, encoder_width=2, first_number=4)
    expected = {
      "token_BT": [[5, 6, 7, 8, 50, 50, 9, PAD], [50, 1, 50, *[PAD] * 5]],
      "segment_BT": [[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, *[0] * 5]],
      "position_BT": [[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 2, *[0] * 5]],
      "loss_BT": [[0, 1, 1, 0, 0, 0, 1, 0], [0, 1, 0, *[0] * 5]],
      "example_BT": [[4, 4, 4, 5, 5, 5, 5, -1], [6, 6, 6, *[-1] * 5]],
      "source_BT": [[1, 1, 1, 0, 0, 0, 0, -1], [0, 0, 0, *[-1] * 5]],
      "frame_count_BR": [[3, 0], [1, 1]],
      # The second chunk of a row begins at audio token 1 · A = 3.
      "audio_BT": [[-1, -1, -1, -1, 0, 1, -1, -1], [0, -1, 3, *[-1] * 5]],
    }
    for name, value in expected.items():
      np.testing.assert_array_equal(getattr(batch, name), value, err_msg=name)
    frames_BRUE = np.zeros((2, 2, 5, 2))
    frames_BRUE[0, 0, :3] = [[1, 2], [3, 4], [5, 6]]
    frames_BRUE[1, 0, 0], frames_BRUE[1, 1, 0] = [1, 2], [3, 4]
    np.testing.assert_array_equal(batch.frames_BRUE, frames_BRUE)
    kinds = {name: value.dtype for name, value in fields(batch).items()}
    assert kinds.pop("frames_BRUE") == np.float32
    assert kinds.pop("loss_BT") == np.bool_
    assert set(kinds.values()) == {np.dtype(np.int32)}

  def test_a_row_without_examples_is_padding(self):
    batch = collate([[]], self.LIMITS, pad_id=PAD, encoder_width=2)
    assert not batch.segment_BT.any()
    assert not batch.loss_BT.any()
    assert (batch.example_BT == -1).all()

  @pytest.mark.parametrize(
    ("changes", "message"),
    [
      ({"frames": ()}, r"'h': its audio spans hold \[2\] tokens, its frames make \[\]"),
      ({"frames": (FRAMES[:2],)}, r"'h': .* \[2\] tokens, its frames make \[1\]"),
      ({"frames": (np.ones((3, 9), np.float32),)}, r"'h': frames \{9\} wide.* are 2"),
      ({"token_T": np.ones(9, int)}, "'h' does not fit.* 9 tokens, max_tokens is 8"),
      ({"frames": (FRAMES,) * 3}, "'h' does not fit.* 3 audio chunks, max_clips is 2"),
      ({"frames": (np.ones((6, 2)),)}, "'h' does not fit.* 6 encoder frames"),
    ],
  )
  def test_misfits_are_named(self, changes, message):
    example = dataclasses.replace(self.HEARD, **changes)
    with pytest.raises(ValueError, match=message):
      collate([[example]], self.LIMITS, pad_id=PAD, encoder_width=2)

  @pytest.mark.parametrize(
    ("row", "message"),
    [((TEXT, HEARD, HEARD), "11 tokens"), ((TWICE, HEARD), "3 audio chunks")],
  )
  def test_a_full_row_takes_no_more(self, row, message):
    with pytest.raises(ValueError, match=f"'h' does not fit.* {message}"):
      collate([row], self.LIMITS, pad_id=PAD, encoder_width=2)


@dataclasses.dataclass
class Entry:
  id: str
  tokens: int
  chunks: int = 0


class Numbers:
  """A feed of bare sizes: batches are the ids of their rows."""

  limits = 10

  def __init__(self, sizes: dict[str, list[int]], weights=None):
    self.names = tuple(sizes)
    self.weights = weights or (1.0,) * len(sizes)
    self.counts = tuple(map(len, sizes.values()))
    self.sizes = list(sizes.values())

  def entry(self, source, index):
    return Entry(f"{self.names[source]}{index}", self.sizes[source][index])

  def fits(self, tokens, chunks):
    return tokens <= self.limits

  def batch(self, rows, first_number):
    return [[self.entry(*place).id for place in row] for row in rows], first_number


def run(feed, count, *, seed=0, batch_size=4, **options):
  """The first batches of a fresh iterator over the mixture."""
  stream = pipeline.mixture(feed, seed)
  iterator = pipeline.batches(feed, stream, batch_size=batch_size, **options)
  with contextlib.closing(iterator):
    return list(itertools.islice(iterator, count))


MIXED = Numbers({"a": [3] * 7, "b": [4] * 5, "c": [9] * 3}, (5.0, 3.0, 2.0))


class TestStream:
  def test_sets_are_drawn_by_weight_and_in_full(self):
    stream = pipeline.mixture(MIXED, 0)
    drawn = [stream[i] for i in range(1000)]
    shares = np.bincount([source for source, _ in drawn]) / 1000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.01)
    of_a = [index for source, index in drawn if source == 0]
    for epoch in range(len(of_a) // 7):  # every epoch holds every example once
      assert sorted(of_a[epoch * 7 : epoch * 7 + 7]) == list(range(7))

  def test_epochs_and_seeds_and_sets_are_shuffled_apart(self):
    feed = Numbers({"a": [1] * 50, "b": [1] * 50})
    first, second = pipeline.mixture(feed, 0), pipeline.mixture(feed, 1)
    orders = [
      [i for s, i in (stream[k] for k in range(start, start + 100)) if s == source]
      for stream in (first, second)
      for start in (0, 100)
      for source in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 8

  def test_once_is_every_example_in_order(self):
    assert pipeline.once(Numbers({"a": [1, 1], "b": [1]})) == [(0, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize("pack", [False, True])
class TestResume:
  def test_the_same_seed_gives_the_same_batches(self, pack):
    assert run(MIXED, 20, pack=pack) == run(MIXED, 20, pack=pack)
    assert run(MIXED, 20, pack=pack) != run(MIXED, 20, pack=pack, seed=1)

  @pytest.mark.parametrize("stop", [0, 1, 7])
  def test_stop_and_resume_is_never_stopped(self, pack, stop):
    whole = run(MIXED, 20, pack=pack)
    stream = pipeline.mixture(MIXED, 0)
    options = {"batch_size": 4, "pack": pack}
    with contextlib.closing(pipeline.batches(MIXED, stream, **options)) as iterator:
      assert list(itertools.islice(iterator, stop)) == whole[:stop]
      state = json.dumps(iterator.get_state())
    assert len(state) < 200
    with contextlib.closing(pipeline.batches(MIXED, stream, **options)) as iterator:
      iterator.set_state(json.loads(state))
      assert list(itertools.islice(iterator, 20 - stop)) == whole[stop:]

  @pytest.mark.parametrize("processes", [2, 4])
  def test_slices_of_processes_make_the_same_global_batch(self, pack, processes):
    whole = run(MIXED, 6, pack=pack)
    parts = [
      run(MIXED, 6, pack=pack, process_index=k, process_count=processes)
      for k in range(processes)
    ]
    for number, ((rows, first), ids) in enumerate(whole):
      assert first == 0
      slices = [part[number] for part in parts]
      assert list(itertools.chain(*[r for (r, _), _ in slices])) == rows
      for (own, before), all_ids in slices:
        assert all_ids == ids  # example_BT counts through the global batch
        own_ids = list(itertools.chain(*own))
        assert all_ids[before : before + len(own_ids)] == own_ids

  def test_other_data_is_refused(self, pack):
    def iterator(feed, seed=0, batch_size=4):
      stream = pipeline.mixture(feed, seed)
      return pipeline.batches(feed, stream, batch_size=batch_size, pack=pack)

    state = iterator(MIXED).get_state()
    longer = Numbers({"a": [3] * 6 + [2], "b": [4] * 5, "c": [9] * 3}, (5.0, 3.0, 2.0))
    for other in (iterator(longer), iterator(MIXED, seed=1), iterator(MIXED, 0, 8)):
      with pytest.raises(ValueError, match="is one in other data"):
        other.set_state(state)


class TestPlan:
  def test_batches_that_cannot_be_shared_out(self):
    for size, processes in ((5, 2), (0, 1)):
      with pytest.raises(ValueError, match=f"batch_size {size} is no"):
        run(MIXED, 1, batch_size=size, process_count=processes)

  def test_packing_is_first_fit_and_loses_nothing(self):
    feed = Numbers({"a": [6, 5, 3, 4, 5, 2, 9]})
    stream = pipeline.once(feed)
    rows, after = pipeline.rows_of(feed, stream, 0, 2, pack=True)
    # Rows of 10: 6 | 5, then 3 → row 0 (9), 4 → row 1 (9), 5 fits nowhere.
    assert rows == [[(0, 0), (0, 2)], [(0, 1), (0, 3)]]
    assert after == 4
    rows, after = pipeline.rows_of(feed, stream, after, 2, pack=True)
    assert rows == [[(0, 4), (0, 5)], [(0, 6)]]
    assert after == 7

  @pytest.mark.parametrize("pack", [False, True])
  def test_one_pass_sees_each_example_once_and_ends(self, pack):
    feed = Numbers({"a": [6, 5, 3, 4, 5, 2, 9]})
    stream = pipeline.once(feed)
    with contextlib.closing(
      pipeline.batches(feed, stream, batch_size=3, pack=pack)
    ) as iterator:
      fed = list(iterator)
    assert sorted(itertools.chain(*[ids for _, ids in fed])) == [
      f"a{k}" for k in range(7)
    ]
    assert all(len(rows) == 3 for (rows, _), _ in fed)
    if not pack:
      assert fed[-1][0][0] == [["a6"], [], []]


@pytest.fixture(scope="module")
def tiny():
  return tokenizer_lib.load("tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Three heard dialogues of different clips, and two of text."""
  folder = tmp_path_factory.mktemp("dialogues")
  heard = []
  for number, samples in enumerate((1600, 3200, 4800)):
    clip = write_tone(folder / f"{number}.wav", samples, 300.0 * (number + 1))
    heard.append(audio_row(f"h{number}", clip, "How high?", f"{number}."))
  heard[2]["messages"] += [
    {"role": "human", "content": "And how long?"},
    {"role": "assistant", "content": "Short.", "think": "Few frames."},
  ]
  heard[2] |= {"answer": "Short.", "meta": {"task": "length"}}
  write_rows(folder / "heard.jsonl", heard)
  write_rows(folder / "text.jsonl", [text_row(f"t{k}", "Q?", "A.") for k in range(2)])
  return folder


@pytest.fixture(scope="module")
def corpus(folder):
  options = {
    name: {"set": "dialogue", "path": str(folder / f"{name}.jsonl")}
    for name in ("heard", "text")
  }
  return Corpus({"heard": 1.0, "text": 1.0}, options, "train")


@pytest.fixture(scope="module")
def store(corpus, tmp_path_factory):
  store = Store(tmp_path_factory.mktemp("store"), "encoder")
  features.fill_frames(store, corpus.clips(), Encoder(), batch_size=2)
  return store


LIMITS = Limits(max_tokens=80, max_clips=2, max_clip_frames=10)


@pytest.fixture(scope="module")
def make(corpus, store, tiny):
  def examples(limits=LIMITS, rendering=None, store=store):
    return Examples(
      corpus, store, tiny, limits, encoder_width=WIDTH, rendering=rendering
    )

  return examples


def one_pass(feed, batch_size=2, **options):
  stream = pipeline.once(feed)
  iterator = pipeline.batches(feed, stream, batch_size=batch_size, **options)
  with contextlib.closing(iterator):
    return list(iterator)


class TestExamples:
  def test_each_trained_turn_is_an_example(self, make, tiny):
    feed = make()
    assert feed.counts == (4, 2)
    ids = [i for _, ids in one_pass(feed) for i in ids]
    assert ids == ["h0#0", "h1#0", "h2#0", "h2#1", "t0#0", "t1#0"]
    assert feed.skipped == []
    last, first = feed.row("h2#1"), feed.row("h2#0")
    assert (last["dialogue_id"], last["answer"]) == ("h2", "Short.")
    assert "answer" not in first  # it belongs to the last turn
    rendered = chat.render(
      last["messages"], tokenizer=tiny, clip_tokens=[[4]], example_id="x"
    )
    batch, _ = one_pass(feed)[1]
    tokens = len(rendered.token_T)
    np.testing.assert_array_equal(batch.token_BT[1, :tokens], rendered.token_T)
    np.testing.assert_array_equal(batch.loss_BT[1, :tokens], rendered.loss_T)
    assert (batch.token_BT[1, tokens:] == tiny.special.pad).all()
    assert "Few frames." in tiny.decode(batch.token_BT[1][batch.loss_BT[1]])

  def test_every_patch_meets_the_frames_of_its_own_clip(
    self, make, corpus, store, tiny
  ):
    frames = {
      sample.audio[0].name: store.read(corpus.key(sample.audio[0]))[0].rows
      for sample in (corpus.sample(0, k) for k in range(3))
    }
    batch: Batch
    seen = []
    for batch, ids in one_pass(make(), batch_size=3):
      patches_BT = batch.token_BT == tiny.special.audio_patch
      np.testing.assert_array_equal(patches_BT, batch.audio_BT >= 0)
      for row, name in enumerate(ids):
        if name.startswith("t"):
          assert not batch.frame_count_BR[row].any()
          continue
        own = frames[name.split("#")[0]]
        assert batch.frame_count_BR[row].tolist() == [len(own), 0]
        np.testing.assert_array_equal(batch.frames_BRUE[row, 0, : len(own)], own)
        assert not batch.frames_BRUE[row, 0, len(own) :].any()
        assert patches_BT[row].sum() == (len(own) + 1) // 2
        seen.append(name)
    assert len(seen) == 4

  def test_packed_rows_hold_the_same_examples(self, make):
    """Each segment of a packed row is the row that it has alone."""
    alone = {}
    for batch, ids in one_pass(make(), batch_size=1):
      alone[ids[0]] = batch
    limits = Limits(max_tokens=200, max_clips=3, max_clip_frames=10)
    packed = make(limits)
    ((batch, ids), *more) = one_pass(packed, batch_size=2, pack=True)
    assert not more
    assert len(ids) == 6
    assert batch.segment_BT.max() >= 3
    for number, name in enumerate(ids):
      (row,) = set(np.nonzero(batch.example_BT == number)[0])
      place_T = batch.example_BT[row] == number
      own = alone[name]
      own_T = own.example_BT[0] == 0
      for field in ("token_BT", "loss_BT", "position_BT", "source_BT"):
        np.testing.assert_array_equal(
          getattr(batch, field)[row, place_T], getattr(own, field)[0, own_T]
        )
      assert len(set(batch.segment_BT[row, place_T])) == 1
      np.testing.assert_array_equal(_heard(batch, row, place_T), _heard(own, 0, own_T))

  def test_sharded_batches_concatenate_to_the_whole(self, make):
    feed = make()
    whole = one_pass(feed, batch_size=4)
    parts = [
      one_pass(feed, batch_size=4, process_index=k, process_count=2) for k in (0, 1)
    ]
    for (batch, ids), *halves in zip(whole, *parts, strict=True):
      assert [h[1] for h in halves] == [ids, ids]
      for name, value in fields(batch).items():
        joined = np.concatenate([getattr(h[0], name) for h in halves])
        np.testing.assert_array_equal(joined, value, err_msg=name)

  def test_what_does_not_fit_is_counted_and_logged(self, make, caplog):
    feed = make(dataclasses.replace(LIMITS, max_clip_frames=6))
    # 4800 samples: 30 mel frames, (30 + 1) // 4 = 7 encoder frames, kept as 8.
    why = "8 encoder frames, max_clip_frames is 6"
    assert [(s.id, s.why) for s in feed.skipped] == [("h2#0", why), ("h2#1", why)]
    assert "4 examples are used and 2 skipped" in caplog.text
    assert f"h2#0: {why}" in caplog.text
    seen = [name for _, ids in one_pass(feed) for name in ids]
    assert seen == ["h0#0", "h1#0", "t0#0", "t1#0"]

  def test_a_set_of_which_nothing_fits(self, make):
    with pytest.raises(ValueError, match=r"of \{'heard'\} fits; .*: .*1 audio"):
      make(dataclasses.replace(LIMITS, max_clips=0))

  def test_long_text_is_skipped_not_cut(self, make):
    lengths = {}
    for batch, ids in one_pass(make(), batch_size=1):
      lengths[ids[0]] = int((batch.segment_BT > 0).sum())
    longest = max(lengths, key=lengths.get)
    feed = make(dataclasses.replace(LIMITS, max_tokens=lengths[longest] - 1))
    assert [s.id for s in feed.skipped] == [longest]
    assert feed.skipped[0].why == (
      f"{lengths[longest]} tokens, max_tokens is {lengths[longest] - 1}"
    )

  def test_clips_without_frames(self, make, tmp_path):
    with pytest.raises(KeyError, match="fill the store first"):
      make(store=Store(tmp_path, "empty"))
    with pytest.raises(ValueError, match="'h0#0' has audio, but no store"):
      make(store=None)

  def test_an_unknown_id(self, make):
    with pytest.raises(KeyError, match="no example 'x'"):
      make().row("x")

  def test_evicted_examples_are_rendered_the_same(self, make, monkeypatch):
    kept = one_pass(make())
    monkeypatch.setattr(examples_lib, "KEPT_TOKENS", 0)
    for (left, _), (right, _) in zip(kept, one_pass(make()), strict=True):
      assert_same(left, right)


class TestPrompts:
  def test_replies_are_cut_off_and_kept_as_reference(self, make, tiny):
    feed = make(rendering=Rendering(prompt=True, turns="last"))
    fed = one_pass(feed, batch_size=1)
    assert [ids[0] for _, ids in fed] == ["h0#0", "h1#0", "h2#1", "t0#0", "t1#0"]
    batch, _ = fed[2]
    text = tiny.decode(batch.token_BT[0][batch.segment_BT[0] == 1], special=True)
    assert text.endswith("And how long?<|EOT|><|BOT|>assistant\n<think>\n")
    assert "2." in text  # the earlier answer is heard
    assert not batch.loss_BT.any()
    row = feed.row("h2#1")
    assert row["messages"][-1]["role"] == "human"
    assert row["reference"]["think"] == "Few frames."

  def test_all_turns_of_an_open_dialogue(self, tmp_path, tiny):
    row = text_row("o", "One?", "1.")
    row["messages"][1]["think"] = "Hm."
    row["messages"].append({"role": "human", "content": "Two?"})
    path = write_rows(tmp_path / "o.jsonl", [row])
    corpus = Corpus({"dialogue": 1.0}, {"dialogue": {"path": str(path)}}, "train")

    def texts(**options):
      rendering = Rendering(prompt=True, **options)
      feed = Examples(
        corpus,
        None,
        tiny,
        Limits(64, 0, 0),
        encoder_width=WIDTH,
        rendering=rendering,
      )
      return feed, [
        tiny.decode(batch.token_BT[0][batch.segment_BT[0] == 1], special=True)
        for batch, _ in one_pass(feed, batch_size=1)
      ]

    opening = "<|BOT|>human\nOne?<|EOT|><|BOT|>assistant\n"
    end = "<|EOT|><|BOT|>human\nTwo?<|EOT|><|BOT|>assistant\n"
    feed, shown = texts()
    assert shown == [f"{opening}<think>\n", f"{opening}1.{end}<think>\n"]
    assert "reference" in feed.row("o#0")
    assert "reference" not in feed.row("o#1")
    _, (_, shown) = texts(thinking=False)
    assert shown.endswith(f"1.{end}<think>\n\n</think>\n")
    _, (_, shown) = texts(history="thought")
    assert shown == f"{opening}<think>\nHm.\n</think>\n1.{end}<think>\n"
    with pytest.raises(ValueError, match="'o' ends with a 'human' turn"):
      Examples(corpus, None, tiny, Limits(64, 0, 0), encoder_width=WIDTH)

  def test_history_with_thoughts_is_one_example(self, make, tiny):
    feed = make(rendering=Rendering(history="thought"))
    assert feed.counts == (3, 2)
    batch, ids = one_pass(feed)[1]
    assert ids[0] == "h2#1"
    learned = tiny.decode(batch.token_BT[0][batch.loss_BT[0]])
    assert learned == "2.Few frames.\n</think>\nShort."

  @pytest.mark.parametrize(
    "wrong",
    [{"turns": "first"}, {"history": "x"}, {"turns": "last", "history": "thought"}],
  )
  def test_renderings_that_make_no_sense(self, wrong):
    with pytest.raises(ValueError, match=r"turns|history"):
      Rendering(**wrong)


def _heard(batch: Batch, row: int, place_T: np.ndarray) -> np.ndarray:
  """Frames behind the patches: the pair of frames that each audio token pools."""
  slot_tokens = (batch.frames_BRUE.shape[2] + 1) // 2
  index = batch.audio_BT[row, place_T]
  index = index[index >= 0]
  slot, token = np.divmod(index, slot_tokens)
  return batch.frames_BRUE[row, slot, 2 * token]


ATTRIBUTES = {"pitch": ("low", "high"), "emotion": ("calm", "glad")}


class TestHearing:
  @pytest.fixture
  def clips(self, tmp_path):
    def build(rows, attributes=ATTRIBUTES, max_samples=3200, max_symbols=8):
      for number, row in enumerate(rows):
        samples = row.pop("samples", 1600)
        name = write_tone(tmp_path / f"{row['id']}.wav", samples, 200.0 + 50 * number)
        row["audio"] = {"path": name}
      path = write_rows(tmp_path / "clips.jsonl", rows)
      options = {"speech": {"path": str(path)}}
      corpus = Corpus({"speech": 1.0}, options, "train", schema.SpeechClip)
      mels = Store(tmp_path, features.MEL_KIND)
      features.fill_mels(mels, corpus.clips())
      limits = hearing.SpeechLimits(max_samples, max_symbols)
      read = {
        corpus.sample(*place).id: mels.read(corpus.key(corpus.sample(*place).audio[0]))
        for place in corpus.places()
      }
      return hearing.Clips(corpus, mels, limits, attributes), read

    return build

  def test_a_batch_by_hand(self, clips):
    feed, read = clips(
      [
        {"id": "a", "transcript": "Ab, c", "attributes": {"pitch": "high"}},
        {"id": "b", "transcript": "", "attributes": {"emotion": "calm", "voice": "x"}},
        {"id": "c", "transcript": "it’s", "samples": 3200},
      ]
    )
    (batch, ids), (rest, last) = one_pass(feed)
    assert (ids, last) == (["a", "b"], ["c"])
    # Blank 0, space 1, a 2 … z 27, apostrophe 28.
    symbols = [[2, 3, 1, 4, 0, 0, 0, 0], [0] * 8]
    np.testing.assert_array_equal(batch.transcript_BT, symbols)
    np.testing.assert_array_equal(batch.transcript_count_B, [4, 0])
    # Columns in order of the names: emotion, pitch.
    np.testing.assert_array_equal(batch.attribute_BC, [[-1, 1], [0, -1]])
    np.testing.assert_array_equal(batch.sample_count_B, [1600, 1600])
    np.testing.assert_array_equal(batch.example_B, [0, 1])
    assert batch.mel_BLM.shape == (2, (3200 + 479) // 160, 128)
    mel_LM = read["a"][0].rows
    np.testing.assert_array_equal(batch.mel_BLM[0, :12], mel_LM)
    assert not batch.mel_BLM[0, 12:].any()
    np.testing.assert_array_equal(rest.transcript_BT[0, :4], [10, 21, 28, 20])
    # A row without a clip: silence in which there is nothing to learn.
    np.testing.assert_array_equal(rest.example_B, [0, -1])
    np.testing.assert_array_equal(rest.sample_count_B, [3200, 321])
    np.testing.assert_array_equal(rest.attribute_BC[1], [-1, -1])
    assert not rest.mel_BLM[1].any()

  def test_symbols_are_numbered_from_the_blank(self):
    assert hearing.symbols(" Zip it's a", "x") == [27, 10, 17, 1, 10, 21, 28, 20, 1, 2]
    assert hearing.SYMBOLS == 1 + 26 + 2

  def test_misfits_are_skipped(self, clips):
    rows = [
      {"id": "ok", "transcript": "a", "attributes": {"pitch": "low"}},
      {"id": "talks", "transcript": "a b c d e"},
      {"id": "long", "transcript": "a", "samples": 3201},
    ]
    feed, _ = clips(rows, {"pitch": ("low",)})
    assert {s.id: s.why for s in feed.skipped} == {
      "talks": "9 symbols, max_symbols is 8",
      "long": "3201 samples, at most 3200 fit",
    }

  @pytest.mark.parametrize(
    ("row", "message"),
    [
      ({"transcript": "3 men"}, "'x': '3' in the transcript '3 men' is no symbol; the"),
      ({"transcript": "ça"}, "'x': 'ç' in the transcript"),
      ({"transcript": "?!"}, "'x': nothing of '\\?!' is left"),
      (
        {"transcript": "a", "attributes": {"pitch": "mid"}},
        r"'x': pitch 'mid' is unknown; the choices are \('low', 'high'\)",
      ),
      ({"transcript": "a", "attributes": {"pitch": "low"}}, "attribute 'emotion': no"),
      ({"transcript": "a b c d e"}, r"no clip of \{'speech'\} fits"),
    ],
  )
  def test_errors(self, clips, row, message):
    with pytest.raises(ValueError, match=message):
      clips([{"id": "x", **row}])
