"""A judge behind an OpenAI-compatible chat-completions endpoint.

Requests are those of posting.py; what was said is kept on disk (kept.py), so a run that
is started again asks nothing twice.
"""

import dataclasses
import json
import random
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath

from stepaudio_jax.core import threads
from stepaudio_jax.judges import completion, kept
from stepaudio_jax.judges.kept import Kept, Said
from stepaudio_jax.judges.posting import Failed, Poster, Refused
from stepaudio_jax.judges.questions import Question

LONGEST_WAIT_S = 60.0  # between two tries, whatever the server asks for
_MILLION = 1e6
_LIKELIEST = 20  # tokens; no server tells more


@dataclasses.dataclass(frozen=True)
class Settings:
  """How an endpoint is asked.

  Attributes:
    max_tokens: of a reply, a thought included.
    concurrency: requests at a time.
    timeout_s: of connecting, of each wait for bytes, and of a request as a whole.
    retries: further tries after 408, 409, 425, 429, 5xx, a broken reply or connection.
    backoff_s: before the first of them; it doubles, up to LONGEST_WAIT_S.
    give_up: so many questions in a row without a reply, refused or not, stop the run.
    key_variable: environment variable with the key; None sends none.
    hears: the sounds of a question are sent (`input_audio`, 16 kHz WAV); False has
      them named by words.
    weighs: the server is asked for its likeliest tokens, which `weighed` needs.
    prompt_price, completion_price: of a million tokens; they only make `cost`.
  """

  temperature: float = 0.0
  max_tokens: int = 4096
  seed: int = 0
  concurrency: int = 8
  timeout_s: float = 300.0
  retries: int = 5
  backoff_s: float = 1.0
  give_up: int = 8
  key_variable: str | None = None
  hears: bool = False
  weighs: bool = False
  prompt_price: float = 0.0
  completion_price: float = 0.0

  def __post_init__(self):
    for name, least in (
      ("temperature", 0),
      ("max_tokens", 1),
      ("concurrency", 1),
      ("retries", 0),
      ("backoff_s", 0),
      ("give_up", 1),
      ("prompt_price", 0),
      ("completion_price", 0),
    ):
      if getattr(self, name) < least:
        raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
    if self.timeout_s <= 0:
      raise ValueError(f"timeout_s={self.timeout_s} must be above 0")


class Tally(NamedTuple):
  """What happened to the questions so far.

  Attributes:
    asked: questions.
    unanswered: of them without a reply.
    cut: of them whose reply met max_tokens.
    retries: further tries.
    cached: of `asked`, those whose reply was on disk; nothing was sent for them.
    damaged: entries on disk that could not be read, and were asked for again.
    prompt_tokens, completion_tokens: of replies that were sent for, as the server
      counts.
  """

  asked: int = 0
  unanswered: int = 0
  cut: int = 0
  retries: int = 0
  cached: int = 0
  damaged: int = 0
  prompt_tokens: int = 0
  completion_tokens: int = 0


class Endpoint:
  """Judge at `url` (".../v1"; chat/completions is appended).

  Args:
    cache: folder in which replies are kept; None keeps none.

  Raises:
    ValueError: the key's variable is not set, or holds what no header can.
  """

  def __init__(
    self,
    url: str,
    model: str,
    settings: Settings | None = None,
    cache: epath.PathLike | None = None,
  ):
    self.url, self.model = url.rstrip("/"), model
    self.settings = settings or Settings()
    self.tally = Tally()
    self._poster = Poster(
      f"{self.url}/chat/completions",
      f"the judge {model!r} at {self.url}",
      self.settings.timeout_s,
      self.settings.key_variable,
    )
    self._kept = None if cache is None else Kept(cache)

  @property
  def cost(self) -> float:
    """Of all tokens so far, in the prices' own currency."""
    settings, tally = self.settings, self.tally
    return (
      settings.prompt_price * tally.prompt_tokens
      + settings.completion_price * tally.completion_tokens
    ) / _MILLION

  def describe(self) -> dict[str, str | float | int]:
    settings = self.settings
    return {
      "kind": "endpoint",
      "url": self.url,
      "model": self.model,
      "temperature": settings.temperature,
      "max_tokens": settings.max_tokens,
      "seed": settings.seed,
      **({"hears": True} if settings.hears else {}),
    }

  def answers(self, questions: Sequence[Question]) -> list[str | None]:
    """Raw replies in order; None where all tries failed or one question is refused.

    Both are logged. A question is refused with 400, 413 or 422: one that is too long
    must not keep all others from being judged. So is one whose sound cannot be read.

    Raises:
      ValueError: the server refuses (another 4xx, a redirect, or `give_up` questions in
        a row); its message is shown.
      ConnectionError: `give_up` questions in a row had no reply.
    """
    return [said and said.text for said in self._asked(questions)]

  @property
  def weighs(self) -> bool:
    """Whether it can be asked how sure it is of a level."""
    return self.settings.weighs

  def weighed(
    self, questions: Sequence[Question]
  ) -> list[tuple[str | None, np.ndarray | None]]:
    """As judges.questions.Weighing; errors as of `answers`."""
    if not self.weighs:
      raise ValueError(f"the judge {self.model!r} is not asked for likely tokens")
    return [
      (said and said.text, np.asarray(said.weights) if said and said.weights else None)
      for said in self._asked(questions)
    ]

  def _asked(self, questions: Sequence[Question]) -> list[Said | None]:
    found: list[Said | None] = [None] * len(questions)
    work = _Work(self)

    def ask(numbered: tuple[int, Question]) -> None:
      place, question = numbered
      found[place] = work.answer(place, question)

    try:
      count = self.settings.concurrency
      threads.each(ask, enumerate(questions), count, stop=work.stop)
    finally:
      self.tally = Tally(*map(sum, zip(self.tally, work.tally, strict=True)))
      told = ", ".join(f"{n} {name}" for name, n in self.tally._asdict().items() if n)
      logging.info("the judge %r so far: %s; cost %.4g", self.model, told, self.cost)
    return found

  def said(self, body: dict[str, Any]) -> Said:
    """What the server says to one request.

    Raises:
      ValueError: the server refuses.
      Refused: it refuses this question.
      Failed: it is worth another try.
    """
    return completion.said(self._poster.post(json.dumps(body).encode()))

  def known(self, body: dict[str, Any]) -> Said | None:
    """What it once said to this request; None where that is not kept.

    Raises:
      kept.Damaged: it is kept and cannot be read.
    """
    return self._kept and self._kept.read(kept.key(self.url, body))

  def keep(self, body: dict[str, Any], said: Said) -> None:
    if self._kept:
      self._kept.write(kept.key(self.url, body), said)

  def body(self, question: Question) -> dict[str, Any]:
    """A request.

    Raises:
      Refused: a sound of the question cannot be read.
    """
    heard = self.settings.hears and question.content
    content = completion.blocks(question.content) if heard else question.text
    turns = [("system", question.system)] if question.system else []
    turns.append(("user", content))
    likely = {"logprobs": True, "top_logprobs": _LIKELIEST}
    return {
      "model": self.model,
      "messages": [{"role": role, "content": text} for role, text in turns],
      "temperature": self.settings.temperature,
      "max_tokens": self.settings.max_tokens,
      "seed": self.settings.seed,
      **(likely if self.settings.weighs else {}),
    }


class _Work:
  """The tries of one call of `answers`, by several threads; `stop` ends them."""

  def __init__(self, endpoint: Endpoint):
    self.tally = Tally()
    self._endpoint, self._settings = endpoint, endpoint.settings
    self._lock, self.stop = threading.Lock(), threading.Event()
    self._in_a_row = 0

  def answer(self, place: int, question: Question) -> Said | None:
    """The reply, or None once all tries have failed."""
    try:
      return self._tried(place, question)
    except BaseException:
      self.stop.set()  # others need not sleep on
      raise

  def _tried(self, place: int, question: Question) -> Said | None:
    self._count(asked=1)
    try:
      body = self._endpoint.body(question)
    except Refused as refused:
      self._refused(place, refused)
      return None
    known = self._known(place, body)
    if known is not None:
      self._count(cached=1)
      self._done(place, known.cut)
      return known
    for number in range(self._settings.retries + 1):
      try:
        said = self._endpoint.said(body)
      except Refused as refused:
        self._refused(place, refused)
        return None
      except Failed as failed:
        why = failed
      else:
        self._endpoint.keep(body, said)
        self._count(
          prompt_tokens=said.prompt_tokens, completion_tokens=said.completion_tokens
        )
        self._done(place, said.cut)
        return said
      if number < self._settings.retries:
        self._count(retries=1)
        if self.stop.wait(_wait_s(self._settings.backoff_s, number, why.wait_s)):
          return None
    self._unanswered(place, why)
    return None

  def _known(self, place: int, body: dict[str, Any]) -> Said | None:
    try:
      return self._endpoint.known(body)
    except kept.Damaged as damaged:
      self._count(damaged=1)
      logging.warning("the kept reply to question %d is damaged: %s", place, damaged)
      return None

  def _done(self, place: int, cut: bool) -> None:
    with self._lock:
      self._in_a_row = 0
    if cut:
      self._count(cut=1)
      logging.warning(
        "the judge's reply %d was cut at max_tokens=%d",
        place,
        self._settings.max_tokens,
      )

  def _refused(self, place: int, why: Refused) -> None:
    logging.warning("no reply to question %d: %s", place, why)
    if self._lost() >= self._settings.give_up:
      raise ValueError(str(why))

  def _lost(self) -> int:
    """Counts one more; how many in a row there are."""
    self._count(unanswered=1)
    with self._lock:
      self._in_a_row += 1
      return self._in_a_row

  def _unanswered(self, place: int, why: Failed) -> None:
    in_a_row, tries = self._lost(), self._settings.retries + 1
    logging.warning("no reply to question %d after %d tries: %s", place, tries, why)
    if in_a_row >= self._settings.give_up:
      raise ConnectionError(
        f"the judge at {self._endpoint.url} left {in_a_row} questions in a row without "
        f"a reply, each tried {tries} times; the last time: {why}"
      )

  def _count(self, **more: int) -> None:
    with self._lock:
      now = self.tally._asdict()
      self.tally = self.tally._replace(**{k: now[k] + n for k, n in more.items()})


def _wait_s(backoff_s: float, number: int, asked_s: float | None) -> float:
  """Doubling, with a little chance so that threads do not come back together."""
  own_s = backoff_s * 2**number * random.uniform(1.0, 1.25)
  return min(max(own_s, asked_s or 0.0), LONGEST_WAIT_S)
