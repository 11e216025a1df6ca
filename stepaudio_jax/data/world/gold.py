"""The gold listener: scores a reply from the truth of its clip (simulated, exact).

Six dimensions from 1 to 5. All read the answer only; acoustic_grounding reads the
thought. Rules, each documented at its function, are deterministic. Training never
imports this: reward models see noisy raters (raters.py), gold is for evaluation.
How a text is unwrapped and its options and digits are found it shares with the rule
rewards; what is right comes from the truth alone.
"""

import itertools
import re

from stepaudio_jax.core import replies
from stepaudio_jax.data.world import words
from stepaudio_jax.rewards.parts import answers, numerals, options

DIMENSIONS = (
  "correctness",
  "acoustic_grounding",
  "instruction",
  "naturalness",
  "emotional_continuity",
  "coherence",
)
# Their marks depend on what is heard in the clip: its label, or the speaker's mood.
# (Coherence knows facts told in clips, but only where a reply names facts.)
HEARD = ("correctness", "acoustic_grounding", "emotional_continuity")
_CLOSE = "</think>"
_UNCERTAIN = re.compile(r"\b(or not|or maybe|or perhaps|maybe not|but no)\b")
_LONGEST_WORDS = 30

# Words of a thought that are evidence for a label, and against the task's others.
CUES = {
  "pitch": {
    "low": ("deep", "dark", "heavy"),
    "middle": ("centre", "centred", "ordinary"),
    "high": ("bright", "thin", "light"),
  },
  "rate": {
    "slow": ("stretched", "long", "drags"),
    "normal": ("steady", "usual", "comfortable"),
    "fast": ("quickly", "hardly", "rush", "short"),
  },
  "speakers": {
    "one": ("same",),
    "two": ("changes", "different", "second"),
  },
  "emotion": {
    "calm": ("gentle", "relaxed"),
    "excited": ("lively", "jumps", "jumping"),
    "sad": ("flat", "quiet", "weak", "drawn"),
    "angry": ("loud", "hard", "sharp"),
  },
}
FEATURES = frozenset(
  "voice tone pitch pace sound sounds words pause part parts "  # noqa: SIM905
  "hear heard says said".split()
)
TONE_WORDS = {
  "calm": ("glad", "nice", "at ease"),
  "excited": ("wonderful", "great", "happy"),
  "sad": ("sorry", "here for you"),
  "angry": ("understand", "sort it out", "breath"),
}


def reply(think: str | None, text: str) -> str:
  """The string a model samples after the prompt's "<think>" line for this reply."""
  return f"{think}\n{_CLOSE}\n{text}" if think else f"\n{_CLOSE}\n{text}"


def score(truth: dict, reply_text: str) -> dict[str, float]:
  """Every dimension of a sampled reply (thought, `</think>`, answer), 1 to 5.

  A thought that never closes answers nothing: 1 throughout.
  """
  thought = replies.split_reply(reply_text)[0]
  answer = answers.answer_text(reply_text)
  if answer is None or not answer.strip():
    return dict.fromkeys(DIMENSIONS, 1.0)
  scores = {
    "correctness": {True: 5.0, None: 2.0, False: 1.0}[correct(truth, reply_text)],
    "acoustic_grounding": _grounding(truth, thought),
    "instruction": _instruction(truth, answer),
    "naturalness": _naturalness(truth, answer),
    "emotional_continuity": _emotion(truth, answer),
    "coherence": _coherence(truth, answer),
  }
  return {name: min(5.0, max(1.0, value)) for name, value in scores.items()}


def correct(truth: dict, reply_text: str) -> bool | None:
  """Whether the reply gives the answer; None where none can be read.

  None: the thought never closed, nothing said, a refusal, two options, no option.
  Choices: exactly one option as a whole word. Digits: words or numerals, in order
  and no other ("three four two", "3 4 2", "342").
  """
  answer = answers.answer_text(reply_text)
  if answer is None:
    return None
  text = answers.unwrapped(answer)
  if not text or answers.refuses(text):
    return None
  if truth.get("choices"):
    found = options.named(text, truth["choices"])
    return found[0] == truth["answer"] if len(found) == 1 else None
  spoken = numerals.digits(text)
  if not spoken or numerals.offers_two(text):
    return None
  return spoken == truth["answer"].split()


def _words(text: str) -> list[str]:
  return re.findall(r"[\w']+", numerals.plain(text))


def _grounding(truth: dict, thought: str) -> float:
  """2 with no thought; else 1, +1 for an acoustic feature, +3 for right evidence.

  Right evidence: a cue word of the label (pitch, rate, speakers, emotion), the
  digits in order, or the remembered value. Evidence for another label: at most 1.5.
  """
  said = _words(thought)
  if not said:
    return 2.0
  feature = 1.0 if set(said) & FEATURES else 0.0
  if truth["task"] in CUES:
    cues = CUES[truth["task"]]
    right = set(said) & set(cues[truth["answer"]])
    wrong = any(set(said) & set(c) for k, c in cues.items() if k != truth["answer"])
  elif truth.get("choices"):
    named = options.named(thought, truth["choices"])
    right, wrong = truth["answer"] in named, any(n != truth["answer"] for n in named)
  else:
    named = numerals.digits(thought)
    right = named == truth["answer"].split()
    wrong = bool(named) and not right
  if wrong:
    return 1.0 + feature / 2
  return 1.0 + feature + (3.0 if right else 0.0)


def _instruction(truth: dict, answer: str) -> float:
  """5 obeyed, 1 not; with none given 4 for an answer to the point, 2 for none."""
  kind = truth["instruction"]
  if kind is None:
    return 4.0 if _to_the_point(truth, answer) else 2.0
  obeyed = {
    "brief": len(_words(answer)) <= len(truth["answer"].split()),
    "sure": _words(answer)[:1] == ["sure"],
    "question": answer.rstrip().endswith("?"),
  }[kind]
  return 5.0 if obeyed else 1.0


def _to_the_point(truth: dict, answer: str) -> bool:
  if truth.get("choices"):
    return bool(options.named(answer, truth["choices"]))
  return bool(numerals.digits(answer))


def _naturalness(truth: dict, answer: str) -> float:
  """4.5; +0.5 for inviting the conversation on; less for what people do not say.

  −2 no final punctuation, −1 no capital, −2 a word said twice running (digits may),
  −1.5 under three words unasked, −1 over 30 words.
  """
  said = _words(answer)
  stutter = any(a == b and a not in words.DIGITS for a, b in itertools.pairwise(said))
  value = 4.5
  value += 0.5 * answer.rstrip().endswith("?")
  value -= 2.0 * (answer.rstrip()[-1] not in ".!?")
  value -= 1.0 * (not answer.lstrip()[0].isupper() and not answer[0].isdigit())
  value -= 2.0 * stutter
  value -= 1.5 * (len(said) < 3 and truth["instruction"] != "brief")
  value -= 1.0 * (len(said) > _LONGEST_WORDS)
  return value


def _emotion(truth: dict, answer: str) -> float:
  """Tone against the mood of the last clip heard.

  Fitting words 5, no tone 3 (4.5 to a neutral voice), another mood's tone 1 (2
  beside a fitting one, or to a neutral voice).
  """
  text = numerals.plain(answer)
  heard = {
    mood
    for mood, terms in TONE_WORDS.items()
    if any(re.search(rf"\b{term}\b", text) for term in terms)
  }
  mood = truth["emotion"]
  if not heard:
    return 4.5 if mood == "neutral" else 3.0
  if heard == {mood}:
    return 5.0
  return 2.0 if mood in heard or mood == "neutral" else 1.0


def _coherence(truth: dict, answer: str) -> float:
  """5; −2 a sentence said twice, −2 two minds, −2 a fact nobody told."""
  text = numerals.plain(answer)
  sentences = [s for s in re.split(r"[.!?]\s*", text) if s.strip()]
  two_minds = bool(_UNCERTAIN.search(text))
  if truth["task"] in words.LABELS:
    two_minds |= len(options.named(text, truth["choices"])) > 1
  value = 5.0
  value -= 2.0 * (len(set(sentences)) < len(sentences))
  value -= 2.0 * two_minds
  value -= 2.0 * _invents(truth, text)
  return value


def _invents(truth: dict, text: str) -> bool:
  """Whether a name, city, colour or digit string is said that was never told."""
  told = {fact["value"] for fact in truth["facts"]}
  named = {v for facts in words.FACTS.values() for v in options.named(text, facts)}
  if truth["task"] in words.LABELS:
    return bool(named - told)
  digits = " ".join(numerals.digits(text))
  return bool(named - told) or bool(digits and digits not in told)
