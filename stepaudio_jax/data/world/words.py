"""The closed vocabulary of the synthetic world: labels, facts and spoken sentences."""

import itertools

PITCHES = ("low", "middle", "high")
RATES = ("slow", "normal", "fast")
SPEAKERS = ("one", "two")
EMOTIONS = ("calm", "excited", "sad", "angry")
LABELS = {
  "pitch": PITCHES,
  "rate": RATES,
  "speakers": SPEAKERS,
  "emotion": EMOTIONS,
}
TASKS = ("pitch", "rate", "speakers", "emotion", "digits", "memory")

DIGITS = (
  "zero one two three four five six seven eight nine".split()  # noqa: SIM905
)
NAMES = (
  "Anna Oscar Emma Felix Laura Simon Julia Peter Nina Victor Alice Bruno".split()  # noqa: SIM905
)
CITIES = (
  "Paris London Boston Tokyo Vienna Madrid Dublin Cairo".split()  # noqa: SIM905
)
COLOURS = (
  "red blue green yellow purple orange silver brown".split()  # noqa: SIM905
)
FACTS = {"name": NAMES, "city": CITIES, "colour": COLOURS}
SLOTS = ("digits", *FACTS)

# What is said: two carriers for each fact; digits are said bare.
CARRIERS = {
  "digits": ("{}",),
  "name": ("my name is {}", "I am {}"),
  "city": ("I live in {}", "I come from {}"),
  "colour": ("my coat is {}", "I like {}"),
}
DIGIT_LENGTHS = (2, 3, 4)
_HELDOUT_ONE_IN = 5


def is_heldout(digits: tuple[int, ...]) -> bool:
  """Whether a digit string belongs to the held-out fifth (fixed for every seed).

  A linear rule: in both parts every digit is equally frequent at every position.
  """
  return sum((place + 1) * d for place, d in enumerate(digits)) % _HELDOUT_ONE_IN == 0


def digit_strings(split: str, length: int) -> list[str]:
  """All digit strings of `split` ("train" or "heldout"), as words."""
  if split not in ("train", "heldout"):
    raise ValueError(f"unknown split {split!r}; the splits are train, heldout")
  return [
    " ".join(DIGITS[d] for d in digits)
    for digits in itertools.product(range(10), repeat=length)
    if is_heldout(digits) == (split == "heldout")
  ]
