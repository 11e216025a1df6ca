"""The plan: balance, silence control, disjoint parts. Nothing is spoken here."""

import collections
import itertools
import re

import numpy as np
import pytest

from stepaudio_jax.data.world import phrases, plan, tasks, voices, words

SPLITS = ("train", "heldout")


@pytest.fixture(scope="module")
def takes():
  """A train part of 900 clips and a held-out part for 120 dialogues a task."""
  return {
    "train": plan.takes("train", plan.train_counts(900), seed=3),
    "heldout": plan.takes("heldout", plan.heldout_counts(120), seed=3),
  }


@pytest.fixture(scope="module")
def made(takes):
  """(rows, truths) of each part."""
  return {
    split: tasks.dialogues(
      split, takes[split], {t.id: f"{t.id}.flac" for t in takes[split]}, 3, per_task
    )
    for split, per_task in (("train", None), ("heldout", 120))
  }


def spread(counts):
  return max(counts.values()) - min(counts.values())


def chi_square(pairs):
  """Pearson's statistic and degrees of freedom of a contingency table."""
  pairs = list(pairs)
  lefts, rights = ({p[k] for p in pairs} for k in (0, 1))
  seen, left, right = (
    collections.Counter(pairs),
    collections.Counter(a for a, _ in pairs),
    collections.Counter(b for _, b in pairs),
  )
  expected = {(a, b): left[a] * right[b] / len(pairs) for a in left for b in right}
  statistic = sum((seen[cell] - e) ** 2 / e for cell, e in expected.items())
  return statistic, (len(lefts) - 1) * (len(rights) - 1)


def assert_independent(pairs):
  # The mean of chi-square is its degrees of freedom, its variance twice that: four
  # standard deviations above would be chance once in some thousand tables.
  statistic, freedom = chi_square(pairs)
  assert statistic < freedom + 4 * np.sqrt(2 * freedom)


def human_text(row):
  return " ".join(
    block["text"]
    for message in row["messages"]
    if message["role"] == "human"
    for block in message["content"]
    if block["type"] == "text"
  )


def reply_text(message):
  return message["content"][0]["text"]


def mentions(text, label):
  return len(re.findall(rf"\b{label.lower()}\b", text.lower()))


def test_chi_square_sees_a_dependence():
  assert chi_square([(0, 0), (1, 1)] * 50) == (100.0, 1)
  assert chi_square([(0, 0), (1, 1), (0, 1), (1, 0)] * 25) == (0.0, 1)


@pytest.mark.parametrize("split", SPLITS)
def test_same_seed_same_plan(takes, split):
  counts = {"train": plan.train_counts(900), "heldout": plan.heldout_counts(120)}
  assert plan.takes(split, counts[split], seed=3) == takes[split]
  assert plan.takes(split, counts[split], seed=4) != takes[split]


def test_counts_add_up():
  assert plan.train_counts(3000) == {"plain": 1650, "pair": 600, "emotion": 750}
  assert plan.heldout_counts(200) == {"plain": 270, "pair": 200, "emotion": 200}
  assert sum(plan.train_counts(24).values()) == 24


@pytest.mark.parametrize("split", SPLITS)
def test_audio_length_is_dealt_alike_in_every_cell_of_labels(takes, split):
  cells = collections.defaultdict(collections.Counter)
  for take in takes[split]:
    cells[tuple(sorted(take.labels.items()))][take.clip.duration_s] += 1
  assert len(cells) == 9 + 2 + 4
  for counts in cells.values():
    full = {d: counts[d] for d in plan.DURATIONS_S}
    assert spread(full) <= 1


@pytest.mark.parametrize("split", SPLITS)
def test_audio_length_tells_nothing_about_any_answer(takes, made, split):
  length = {take.id: take.clip.duration_s for take in takes[split]}
  rows, _ = made[split]
  heard = {row["id"]: length[row["meta"]["clips"][0]] for row in rows}
  for task in words.LABELS:
    own = [row for row in rows if row["meta"]["task"] == task]
    assert_independent((row["answer"], heard[row["id"]]) for row in own)
  # Digit strings are too many to count: their first digit and their number.
  own = [row for row in rows if row["meta"]["task"] == "digits"]
  assert_independent((row["answer"].split()[0], heard[row["id"]]) for row in own)
  assert_independent((row["answer"].count(" "), heard[row["id"]]) for row in own)
  for values in words.FACTS.values():
    own = [row for row in rows if row.get("choices") == list(values)]
    assert_independent((row["answer"], heard[row["id"]]) for row in own)


@pytest.mark.parametrize("split", SPLITS)
def test_what_is_said_and_by_whom_is_dealt_alike_for_every_label(takes, split):
  for task in words.LABELS:
    own = [take for take in takes[split] if task in take.labels]
    assert_independent((t.labels[task], t.facts[0][0]) for t in own)
    assert_independent((t.labels[task], len(t.transcript.split())) for t in own)
    assert_independent((t.labels[task], t.clip.noise_snr_db is None) for t in own)
    assert_independent((t.labels[task], t.clip.reverb_s is None) for t in own)
  moods = [take for take in takes[split] if take.kind == "emotion"]
  assert_independent((t.labels["emotion"], t.voices[0]) for t in moods)
  plain = [take for take in takes[split] if take.kind == "plain"]
  assert_independent((t.labels["pitch"], t.labels["rate"]) for t in plain)


def test_no_voice_gives_the_pitch_away():
  reached = {
    voice: {p for p in words.PITCHES if voice in voices.voices_reaching(p)}
    for voice in voices.VOICES
  }
  assert all(len(levels) >= 2 for levels in reached.values())
  assert all(len(voices.voices_reaching(p)) >= 3 for p in words.PITCHES)
  bands = [voices.PITCH_BAND_HZ[p] for p in words.PITCHES]
  for (_, top), (bottom, _) in itertools.pairwise(bands):
    assert bottom / top > 1.25


def test_pitch_settings_follow_the_measured_table():
  assert voices.pitch_setting("en-us", 110) == 60
  assert voices.pitch_setting("en-us+f1", 112) == 0
  rng = np.random.default_rng(0)
  assert 235 <= voices.f0_in_band("en-us+f1", "high", rng) <= 290
  with pytest.raises(ValueError, match="en-us reaches 73–169 Hz, not 300 Hz"):
    voices.pitch_setting("en-us", 300)
  with pytest.raises(ValueError, match=r"en-us has no high pitch; try .*f1"):
    voices.f0_in_band("en-us", "high", rng)


def test_labels_do_not_share_settings():
  bands = [voices.RATE_BAND_WPM[rate] for rate in words.RATES]
  assert all(high[0] / low[1] > 1.2 for low, high in itertools.pairwise(bands))
  for a, b in itertools.combinations(words.EMOTIONS, 2):
    apart = [
      knob
      for knob, (low, high) in voices.STYLES[a].items()
      if high < voices.STYLES[b][knob][0] or low > voices.STYLES[b][knob][1]
    ]
    assert len(apart) >= 3, (a, b)


def test_pairs_differ_in_speakers_only(takes):
  for take in takes["train"]:
    assert len(take.clip.utterances) == (2 if take.kind == "pair" else 1)
    if take.kind == "pair":
      assert len(take.voices) == words.SPEAKERS.index(take.labels["speakers"]) + 1
  pairs = [take for take in takes["train"] if take.kind == "pair"]
  assert_independent(
    (t.labels["speakers"], t.clip.utterances[0].voice in voices.DEEP_VOICES)
    for t in pairs
  )
  assert_independent((t.labels["speakers"], t.clip.gap_s > 0.2) for t in pairs)


def test_train_and_heldout_share_no_clip_and_no_digit_string(takes):
  ids, strings = (
    [{key(t) for t in takes[split]} - {None} for split in SPLITS]
    for key in (lambda t: t.id, lambda t: t.fact("digits"))
  )
  assert not ids[0] & ids[1]
  assert strings[0]
  assert strings[1]
  assert not strings[0] & strings[1]


@pytest.mark.parametrize("length", words.DIGIT_LENGTHS)
def test_heldout_strings_are_a_fifth_with_even_digits(length):
  heldout = words.digit_strings("heldout", length)
  assert len(heldout) == 10**length // 5
  assert len({*heldout, *words.digit_strings("train", length)}) == 10**length
  for place in range(length):
    counts = collections.Counter(s.split()[place] for s in heldout)
    assert counts == dict.fromkeys(words.DIGITS, 10 ** (length - 1) // 5)


def test_an_unknown_split_lists_the_splits():
  with pytest.raises(ValueError, match="'dev'; the splits are train, heldout"):
    words.digit_strings("dev", 2)
  with pytest.raises(ValueError, match="'dev'"):
    plan.takes("dev", plan.train_counts(9), 0)


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_balanced_within_each_task(made, split):
  rows, _ = made[split]
  for task, labels in words.LABELS.items():
    counts = collections.Counter(
      row["answer"] for row in rows if row["meta"]["task"] == task
    )
    assert set(counts) == set(labels)
    assert spread(counts) == 0
  memory = [row for row in rows if row["meta"]["task"] == "memory"]
  for slot, values in words.FACTS.items():
    counts = collections.Counter(
      row["answer"] for row in memory if row.get("choices") == list(values)
    )
    assert set(counts) == set(values), slot
    assert spread(counts) <= 1


def test_every_heldout_task_has_enough(made):
  counts = collections.Counter(row["meta"]["task"] for row in made["heldout"][0])
  assert set(counts) == set(words.TASKS)
  assert all(120 <= count <= 123 for count in counts.values())


def test_too_few_clips_for_a_task_is_an_error(takes):
  with pytest.raises(ValueError, match="pitch needs 334 clips a label, the plan has"):
    tasks.dialogues("heldout", takes["heldout"], {}, 0, per_task=1000)


@pytest.mark.parametrize("split", SPLITS)
def test_questions_and_history_do_not_leak_the_answer(made, split):
  for row in made[split][0]:
    *before, last = row["messages"]
    assert last["role"] == "assistant"
    asked = human_text(row)
    if row["meta"]["task"] in words.LABELS:
      named = {c for c in row["choices"] if mentions(asked, c)}
      assert named in (set(), set(row["choices"])), row["id"]
    else:
      assert not mentions(asked, row["answer"]), row["id"]
    for message in before:
      if message["role"] == "assistant":
        assert not mentions(reply_text(message), row["answer"]), row["id"]


def test_every_reply_says_its_label_once_and_no_other(made):
  for row in made["train"][0]:
    text = reply_text(row["messages"][-1])
    assert mentions(text, row["answer"]) == 1, row["id"]
    others = set(row.get("choices", ())) - {row["answer"]}
    assert not any(mentions(text, other) for other in others), row["id"]
    thought = row["messages"][-1].get("think", "")
    assert len(text.split()) + len(thought.split()) <= 30


def test_rows_have_the_shape_of_the_schema(made):
  rows, truths = made["train"]
  assert len({row["id"] for row in rows}) == len(rows)
  assert [row["id"] for row in rows] == [truth["id"] for truth in truths]
  for row, truth in zip(rows, truths, strict=True):
    roles = [message["role"] for message in row["messages"]]
    roles = roles[roles[0] == "system" :]
    assert roles == ["human", "assistant"] * row["meta"]["turns"]
    heard = [
      block["path"]
      for message in row["messages"]
      for block in message["content"]
      if block["type"] == "audio"
    ]
    assert heard == [f"{clip}.flac" for clip in row["meta"]["clips"]]
    assert truth["simulated"]
    assert truth["answer"] == row["answer"]
    assert [clip["id"] for clip in truth["clips"]] == row["meta"]["clips"]


def test_memory_asks_for_the_first_clip_after_another(made):
  rows, truths = made["train"]
  memory = [(r, t) for r, t in zip(rows, truths, strict=True) if t["task"] == "memory"]
  slots = collections.Counter(truth["slot"] for _, truth in memory)
  assert set(slots) == set(words.SLOTS)
  assert spread(slots) <= 1
  for row, truth in memory:
    first, second = truth["clips"]
    assert row["answer"] in first["transcript"]
    told = [f["clip"] for f in truth["facts"] if f["slot"] == truth["slot"]]
    assert told == [first["id"]] != [second["id"]]


def test_a_fifth_goes_without_a_thought_and_a_third_of_long_ones_hear_twice(made):
  rows, _ = made["train"]
  silent = np.mean(["think" not in row["messages"][-1] for row in rows])
  assert 0.17 < silent < 0.23
  long = [row for row in rows if row["meta"]["turns"] > 1]
  assert np.mean([len(row["meta"]["clips"]) > 1 for row in long]) > 1 / 3


def test_instructions_hold_in_every_later_reply(made):
  rows, truths = made["train"]
  seen = collections.Counter()
  for row, truth in zip(rows, truths, strict=True):
    replies = [reply_text(m) for m in row["messages"] if m["role"] == "assistant"]
    lasting = phrases.LASTING_INSTRUCTIONS.get(truth["instruction"])
    bound = replies if lasting and lasting in human_text(row) else replies[-1:]
    rubric = {line["text"] for line in row.get("rubric", ())}
    assert (phrases.RUBRICS.get(truth["instruction"]) in rubric) == bool(
      truth["instruction"]
    )
    seen[truth["instruction"]] += 1
    if truth["instruction"] == "sure":
      assert all(reply.startswith("Sure. ") for reply in bound)
    elif truth["instruction"] == "question":
      assert all(reply.endswith("?") for reply in bound)
    elif truth["instruction"] == "brief":
      assert bound == [phrases.capital(row["answer"]) + "."]
  assert set(seen) == {None, *phrases.INSTRUCTIONS}


def test_the_corpus_has_every_word_of_the_world(made):
  known = {w for line in plan.corpus() for w in re.findall(r"[\w']+", line)}
  for split in SPLITS:
    for row in made[split][0]:
      for message in row["messages"]:
        text = message["content"][-1]["text"] + " " + message.get("think", "")
        missing = set(re.findall(r"[\w']+", text)) - known
        assert not missing
