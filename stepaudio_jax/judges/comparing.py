"""Which of two replies is better, by a judge's levels: r = φ(g) (R1.5 eq. 2, 3).

g is one of six levels (core/levels.py) that the judge names behind its reasons, given
the conversation, both replies and a rubric or none. What cannot be read is masked
(NaN), never 0; it is counted, and told in the log.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from stepaudio_jax.core import levels
from stepaudio_jax.judges.questions import Judge, Question, Template
from stepaudio_jax.text import comparison

TEMPLATE = Template(comparison.WORDING, comparison.SYSTEM).hash
_SHOWN = 80  # characters of a reply that cannot be read

Row = Mapping[str, Any]


class Pair(NamedTuple):
  """Two replies to one conversation, A and B as the judge reads them.

  Attributes:
    history: messages before the replies.
    first, second: answers without thoughts.
    rubric: items {"text", "weight"}.
    dimension: what alone counts.
  """

  history: Sequence[Row]
  first: str
  second: str
  rubric: Sequence[Row] = ()
  dimension: str = comparison.OVERALL

  @property
  def alike(self) -> bool:
    """Whether both orders are one question, to which no answer is consistent."""
    return self.first.strip() == self.second.strip()

  def swapped(self) -> "Pair":
    return self._replace(first=self.second, second=self.first)


class Verdict(NamedTuple):
  """What a judge said of a pair.

  Attributes:
    level: 1 … 6, None where it named none.
    value: φ, above 0 where A is better; NaN where it is not known.
  """

  raw: str | None
  level: int | None
  value: float


class Both(NamedTuple):
  """A pair in both orders; `backward` was asked about the swapped pair."""

  forward: Verdict
  backward: Verdict

  @property
  def value(self) -> float:
    """½(φ(A, B) − φ(B, A)): exactly the opposite where A and B are swapped."""
    return (self.forward.value - self.backward.value) / 2

  @property
  def agrees(self) -> bool | None:
    """Whether both orders name one winner; None where either is not known."""
    product = self.forward.value * self.backward.value
    return None if np.isnan(product) else bool(product < 0)


class Tally(NamedTuple):
  """What became of the judgements so far.

  Attributes:
    asked: judgements that were wanted, an order each.
    calls: questions put to the judge; one that is wanted twice is put once.
    unread: judgements without a value.
    pairs: of which both orders have one; two replies that say the same are one order.
    disagreed: of `pairs`, those whose orders name different winners, or none.
  """

  asked: int = 0
  calls: int = 0
  unread: int = 0
  pairs: int = 0
  disagreed: int = 0

  def shares(self) -> dict[str, float]:
    """To be logged; NaN where there was nothing to count."""
    return {
      "calls": float(self.calls),
      "unread": self.unread / self.asked if self.asked else float("nan"),
      "disagreement": self.disagreed / self.pairs if self.pairs else float("nan"),
    }


class Comparer:
  """A judge that is asked for levels, and what they are worth.

  Args:
    phi_6: of each level.
    expected: φ is the mean under the judge's probabilities of the level tokens instead
      of that of the level that it names.

  Raises:
    ValueError: `expected` of a judge that tells no probabilities.
  """

  def __init__(
    self,
    judge: Judge,
    phi_6: Sequence[float] = levels.LINEAR,
    *,
    expected: bool = False,
  ):
    if expected and not getattr(judge, "weighs", hasattr(judge, "weighed")):
      raise ValueError(
        "phi 'expected' needs a judge that tells its probabilities of the levels: a "
        "checkpoint, or an endpoint that is asked for them (asking.weighs); this one "
        f"is {judge.describe()}"
      )
    self._judge, self._phi_6, self._expected = judge, tuple(phi_6), expected
    self._tally = Tally()

  @property
  def tally(self) -> Tally:
    return self._tally

  def taken(self) -> Tally:
    """The tally since it was last taken, which begins anew."""
    tally, self._tally = self._tally, Tally()
    return tally

  def verdicts(self, pairs: Sequence[Pair]) -> list[Verdict]:
    """One order of each pair, as it is given."""
    questions = [question(pair) for pair in pairs]
    keys = [(each.text, repr(each.content)) for each in questions]
    new = dict(zip(keys, questions, strict=True))
    said = dict(zip(new, self._said([*new.values()]), strict=True))
    found = [said[key] for key in keys]
    unread = [each.raw for each in found if np.isnan(each.value)]
    self._count(asked=len(found), calls=len(new), unread=len(unread))
    if unread:
      logging.warning(
        "%d of %d judgements name no level; the first say: %r",
        len(unread),
        len(found),
        [raw if raw is None else raw[-_SHOWN:] for raw in unread[:3]],
      )
    return found

  def both(self, pairs: Sequence[Pair]) -> list[Both]:
    """Both orders of each pair."""
    found = self.verdicts([*pairs, *(pair.swapped() for pair in pairs)])
    halves = zip(found[: len(pairs)], found[len(pairs) :], strict=True)
    out = [Both(*each) for each in halves]
    several = [each for pair, each in zip(pairs, out, strict=True) if not pair.alike]
    known = [each.agrees for each in several if each.agrees is not None]
    self._count(pairs=len(known), disagreed=known.count(False))
    return out

  def _said(self, questions: Sequence[Question]) -> list[Verdict]:
    if not questions:
      return []
    if not self._expected:
      named = [(raw, levels.named(raw)) for raw in self._judge.answers(questions)]
      return [Verdict(*one, levels.value(one[1], self._phi_6)) for one in named]
    return [
      Verdict(raw, levels.named(raw), levels.expected(probability_6, self._phi_6))
      for raw, probability_6 in self._judge.weighed(questions)
    ]

  def _count(self, **more: int) -> None:
    now = self._tally._asdict()
    self._tally = self._tally._replace(**{k: now[k] + n for k, n in more.items()})


def question(pair: Pair) -> Question:
  """What the judge is asked; for one that cannot hear, [audio] stands for sounds."""
  blocks = comparison.content(*pair)
  heard = any(block["type"] == "audio" for block in blocks)
  return Question(
    comparison.SYSTEM,
    comparison.unheard(blocks),
    TEMPLATE,
    tuple(blocks) if heard else (),
  )
