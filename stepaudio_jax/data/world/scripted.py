"""Scripted replies of known faults: half the candidates of simulated preferences."""

import dataclasses
import itertools

from stepaudio_jax.data.world import phrases, words
from stepaudio_jax.data.world.deal import Dealer, dealer

# Sentences that fill a reply to the length of its rival and say nothing.
FILLERS = (
  "I listened to it.",
  "That is my answer.",
  "This is what I can tell from the clip.",
  "I hope that helps you.",
)
DOUBTS = ("Or maybe not.", "But no, or perhaps.")
EMPTY_THOUGHTS = ("The person asks me to answer.", "Let me think what to write.")
TONE_KINDS = ("fitting", "none", "wrong")


@dataclasses.dataclass(frozen=True)
class Quality:
  """What is good about a reply; each field moves one gold dimension."""

  right: bool = True
  grounded: bool = True
  obedient: bool = True
  fluent: bool = True
  tone: str = "fitting"
  coherent: bool = True
  inviting: bool = False

  def name(self, truth: dict) -> str:
    """scripted/ and its faults: "scripted/wrong+doubting"."""
    moody = truth["emotion"] != "neutral"
    faults = {
      "wrong": not self.right,
      "ungrounded": not self.grounded,
      "disobedient": truth["instruction"] is not None and not self.obedient,
      "stuttering": not self.fluent,
      "toneless": moody and self.tone == "none",
      "tactless": self.tone == "wrong",
      "doubting": not self.coherent,
    }
    return "scripted/" + ("+".join(k for k, v in faults.items() if v) or "good")


def drawn(deal: Dealer) -> Quality:
  """A quality with zero to three faults."""
  return Quality(
    right=deal.chance(0.65),
    grounded=deal.chance(0.65),
    obedient=deal.chance(0.5),
    fluent=deal.chance(0.8),
    tone=deal.deal(("fitting", *TONE_KINDS), "quality tone"),
    coherent=deal.chance(0.8),
    inviting=deal.chance(0.4),
  )


def reply(truth: dict, quality: Quality, deal: Dealer) -> tuple[str | None, str]:
  """(thought, answer) of this quality to the last turn of the truth's dialogue."""
  label = truth["answer"] if quality.right else other(truth, deal)
  return _thought(truth, label, quality, deal), _answer(truth, label, quality, deal)


def other(truth: dict, deal: Dealer) -> str:
  """A wrong label of the same kind; digits differ at one place."""
  if truth.get("choices"):
    rest = [choice for choice in truth["choices"] if choice != truth["answer"]]
    return rest[int(deal.rng.integers(len(rest)))]
  digits = truth["answer"].split()
  place = int(deal.rng.integers(len(digits)))
  shift = int(deal.rng.integers(1, 10))
  digits[place] = words.DIGITS[(words.DIGITS.index(digits[place]) + shift) % 10]
  return " ".join(digits)


def _thought(truth: dict, label: str, quality: Quality, deal: Dealer) -> str:
  if not quality.grounded:
    return deal.deal(EMPTY_THOUGHTS, "empty thought")
  if truth["task"] in words.LABELS:
    return deal.deal(phrases.THOUGHTS[truth["task"], label], "thought", label)
  forms = (
    phrases.DIGIT_THOUGHTS if truth["task"] == "digits" else phrases.MEMORY_THOUGHTS
  )
  return deal.deal(forms, "thought", truth["task"]).format(label)


def _answer(truth: dict, label: str, quality: Quality, deal: Dealer) -> str:
  kind = truth["instruction"] if quality.obedient else None
  if kind == "brief":
    return phrases.capital(label) + "."
  template = deal.deal(phrases.ANSWERS[truth["task"]], "answer", truth["task"])
  core = phrases.answer(template, truth["task"], label)
  parts = [core if quality.fluent else _stutter(core)]
  tone = _tone(truth["emotion"], quality.tone, deal)
  parts += [tone] if tone else []
  parts += [deal.deal(DOUBTS, "doubt")] if not quality.coherent else []
  if deal.chance(0.4):
    parts.append(deal.deal(FILLERS, "filler"))
  asks = kind == "question" or (quality.inviting and truth["instruction"] != "question")
  parts += [deal.deal(phrases.INVITATIONS, "invitation")] if asks else []
  return " ".join((["Sure."] if kind == "sure" else []) + parts)


def _tone(emotion: str, kind: str, deal: Dealer) -> str | None:
  if kind == "none" or (kind == "fitting" and emotion == "neutral"):
    return None
  moods = {"calm": "angry", "excited": "sad", "sad": "excited", "angry": "excited"}
  moods["neutral"] = "sad"
  mood = emotion if kind == "fitting" else moods[emotion]
  return deal.deal(phrases.TONES[mood], "tone", mood)


def _stutter(sentence: str) -> str:
  """The first word twice: "The The voice is low."."""
  return f"{sentence.split()[0]} {sentence}"


def corpus() -> list[str]:
  """Its sentences, for the tokenizer."""
  cores = [
    _stutter(phrases.answer(template, task, label))
    for task, labels in words.LABELS.items()
    for template, label in itertools.product(phrases.ANSWERS[task], labels)
  ]
  return [*FILLERS, *DOUBTS, *EMPTY_THOUGHTS, *cores]


def candidates(truth: dict, count: int, seed: int) -> list[dict]:
  """`count` different scripted candidates, each {"text", "think", "model"}."""
  deal = dealer(seed, 5)
  found: dict[tuple, dict] = {}
  for _ in range(20 * count):
    quality = drawn(deal)
    think, text = reply(truth, quality, deal)
    row = {"text": text, "think": think, "model": quality.name(truth)}
    found.setdefault((think, text), row)
    if len(found) == count:
      break
  return list(found.values())
