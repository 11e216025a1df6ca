"""What is to be spoken: every clip of the world with its labels, from one seed.

Silence control (training.md §5): a clip's length is dealt within each cell of
labels, so the number of audio tokens tells nothing about any label.
"""

import dataclasses
import itertools

from stepaudio_jax.audio.speech import Clip, Utterance
from stepaudio_jax.data.world import phrases, scripted, text_only, voices, words
from stepaudio_jax.data.world.deal import Dealer, dealer

DURATIONS_S = (2.8, 2.9, 3.0, 3.1, 3.2)
GAP_S = (0.15, 0.25)  # between the two utterances of a pair
_NOISY_SHARE, _SNR_DB = 0.4, (15.0, 30.0)
_REVERBERANT_SHARE, _REVERB_S = 0.3, (0.15, 0.35)
# Half of what is said is digits, the rest one fact.
_PLAIN_TEXTS = ("digits", "digits", "digits", "name", "city", "colour")
_PAIR_TEXTS = ("digits", "digits", "facts")
_TRAIN_SHARES = {"plain": 0.55, "pair": 0.20, "emotion": 0.25}
_SPLITS = ("train", "heldout")


@dataclasses.dataclass(frozen=True)
class Take:
  """One planned clip and what is true of it.

  `kind`: plain (pitch and rate labelled), pair (two utterances by one or two
  voices) or emotion. `facts`: (slot, value) in the order spoken. `labels`: the
  attributes that may be asked about; a missing one has no key.
  """

  clip: Clip
  kind: str
  facts: tuple[tuple[str, str], ...]
  labels: dict[str, str]

  @property
  def id(self) -> str:
    return self.clip.id

  @property
  def transcript(self) -> str:
    return " ".join(utterance.text for utterance in self.clip.utterances)

  @property
  def voices(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys(u.voice for u in self.clip.utterances))

  def fact(self, slot: str) -> str | None:
    """The value told in this slot, or None."""
    return next((value for name, value in self.facts if name == slot), None)


def train_counts(clips: int) -> dict[str, int]:
  """How many training clips of each kind; they add up to `clips`."""
  pair = round(clips * _TRAIN_SHARES["pair"])
  emotion = round(clips * _TRAIN_SHARES["emotion"])
  return {"plain": clips - pair - emotion, "pair": pair, "emotion": emotion}


def heldout_counts(per_task: int) -> dict[str, int]:
  """Clips enough for `per_task` dialogues a task, whole rounds of every label."""
  plain = -(-27 * per_task // (20 * 9)) * 9
  pair = -(-per_task // 2) * 2
  emotion = -(-per_task // 4) * 4
  return {"plain": plain, "pair": pair, "emotion": emotion}


def takes(split: str, counts: dict[str, int], seed: int) -> list[Take]:
  """Every planned clip of a split, in a drawn order; same arguments, same plan."""
  if split not in _SPLITS:
    raise ValueError(f"unknown split {split!r}; the splits are {_SPLITS}")
  deal = dealer(seed, 1, _SPLITS.index(split))
  makers = {"plain": _plain, "pair": _pair, "emotion": _emotion}
  drafts = [
    (kind, makers[kind](index, split, deal))
    for kind, count in counts.items()
    for index in range(count)
  ]
  return [
    _take(f"{split}-{number:05d}", kind, draft, deal)
    for number, (kind, draft) in enumerate(deal.shuffled(drafts))
  ]


@dataclasses.dataclass(frozen=True)
class _Draft:
  utterances: tuple[Utterance, ...]
  facts: tuple[tuple[str, str], ...]
  labels: dict[str, str]


def _plain(index: int, split: str, deal: Dealer) -> _Draft:
  cells = tuple(itertools.product(words.PITCHES, words.RATES))
  pitch, rate = cells[index % len(cells)]
  slot, value, text = _one_text(split, deal, pitch, rate)
  voice = deal.deal(voices.voices_reaching(pitch), "voice", pitch)
  utterance = voices.neutral(
    text,
    voice,
    voices.f0_in_band(voice, pitch, deal.rng),
    voices.whole(deal.rng, voices.RATE_BAND_WPM[rate]),
    deal.rng,
  )
  return _Draft((utterance,), ((slot, value),), {"pitch": pitch, "rate": rate})


def _emotion(index: int, split: str, deal: Dealer) -> _Draft:
  style = words.EMOTIONS[index % len(words.EMOTIONS)]
  slot, value, text = _one_text(split, deal, style)
  voice = deal.deal(voices.VOICES, "voice", style)
  utterance = voices.styled(text, voice, style, deal.rng)
  return _Draft((utterance,), ((slot, value),), {"emotion": style})


def _pair(index: int, split: str, deal: Dealer) -> _Draft:
  """Two utterances with a gap, by one voice or by two: the gap tells nothing."""
  speakers = words.SPEAKERS[index % 2]
  facts, texts = _two_texts(split, deal, speakers)
  deep = deal.deal(voices.DEEP_VOICES, "deep", speakers), 105.0
  bright = deal.deal(voices.BRIGHT_VOICES, "bright", speakers), 215.0
  deep_first = deal.deal((True, False), "order", speakers)
  cast = [deep, bright] if deep_first else [bright, deep]
  if speakers == "one":
    cast = [cast[0]] * 2
  rate = voices.whole(deal.rng, voices.PAIR_RATE_WPM)
  utterances = tuple(
    voices.neutral(text, voice, f0 * deal.rng.uniform(0.93, 1.07), rate, deal.rng)
    for text, (voice, f0) in zip(texts, cast, strict=True)
  )
  return _Draft(utterances, facts, {"speakers": speakers})


def _one_text(split: str, deal: Dealer, *cell) -> tuple[str, str, str]:
  """Slot, value and sentence, dealt alike within every cell of labels."""
  slot = deal.deal(_PLAIN_TEXTS, "slot", *cell)
  if slot == "digits":
    value = _digits(split, deal, *cell)
    return slot, value, value
  value = deal.deal(words.FACTS[slot], "value", slot)
  return slot, value, deal.deal(words.CARRIERS[slot], "carrier", slot).format(value)


def _two_texts(split: str, deal: Dealer, speakers: str) -> tuple[tuple, tuple]:
  if deal.deal(_PAIR_TEXTS, "slot", "pair", speakers) == "digits":
    digits = _digits(split, deal, "pair", speakers).split()
    shortest = max(1, len(digits) - 2)
    cut = int(deal.rng.integers(shortest, min(2, len(digits) - 1) + 1))
    spoken = (" ".join(digits[:cut]), " ".join(digits[cut:]))
    return (("digits", " ".join(digits)),), spoken
  slots = deal.deal(tuple(itertools.permutations(words.FACTS, 2)), "slots", speakers)
  facts = tuple((slot, deal.deal(words.FACTS[slot], "value", slot)) for slot in slots)
  spoken = tuple(
    deal.deal(words.CARRIERS[slot], "carrier", slot).format(value)
    for slot, value in facts
  )
  return facts, spoken


_STRINGS = {
  (split, length): words.digit_strings(split, length)
  for split in _SPLITS
  for length in words.DIGIT_LENGTHS
}


def _digits(split: str, deal: Dealer, *cell) -> str:
  length = deal.deal(words.DIGIT_LENGTHS, "length", *cell)
  return deal.deal(_STRINGS[split, length], "string", length)


def _take(clip_id: str, kind: str, draft: _Draft, deal: Dealer) -> Take:
  cell = tuple(sorted(draft.labels.items()))
  noisy, reverberant = deal.chance(_NOISY_SHARE), deal.chance(_REVERBERANT_SHARE)
  clip = Clip(
    id=clip_id,
    utterances=draft.utterances,
    gap_s=round(float(deal.rng.uniform(*GAP_S)), 3),
    duration_s=deal.deal(DURATIONS_S, "duration", *cell),
    noise_snr_db=round(float(deal.rng.uniform(*_SNR_DB)), 1) if noisy else None,
    reverb_s=round(float(deal.rng.uniform(*_REVERB_S)), 2) if reverberant else None,
    seed=int(deal.rng.integers(2**31)),
  )
  return Take(clip, kind, draft.facts, draft.labels)


def corpus() -> list[str]:
  """Every sentence form of the world, for training the tiny tokenizer."""
  return [*phrases.corpus(), *text_only.corpus(), *scripted.corpus()]
