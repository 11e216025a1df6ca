"""A judge behind an OpenAI-compatible chat-completions endpoint.

Standard library only; http_proxy, https_proxy and no_proxy are respected. The key is
read from an environment variable at each request and kept nowhere; redirects are
refused, for they would take it elsewhere.
"""

import dataclasses
import http.client
import json
import os
import random
import threading
from collections.abc import Sequence
from email.message import Message
from typing import Any, NamedTuple
from urllib import error as url_error
from urllib import request

from absl import logging

from stepaudio_jax.core import threads
from stepaudio_jax.judges.questions import Question

LONGEST_WAIT_S = 60.0  # between two tries, whatever the server asks for
_SHOWN = 500  # characters of a server's message
# Beside 5xx: it took too long, somebody else was faster, or there were too many.
_TO_TRY_AGAIN = (408, 409, 425, 429)
# What a server says of one question: too long for it, or not to its taste.
_OF_THE_QUESTION = (400, 413, 422)
_AGENT = "stepaudio_jax"  # some servers turn Python's own name away


@dataclasses.dataclass(frozen=True)
class Settings:
  """How an endpoint is asked.

  Attributes:
    max_tokens: of a reply, a thought included.
    concurrency: requests at a time.
    timeout_s: of connecting, and of each wait for bytes.
    retries: further tries after 408, 409, 425, 429, 5xx, a broken reply or connection.
    backoff_s: before the first of them; it doubles, up to LONGEST_WAIT_S.
    give_up: so many questions in a row without a reply, refused or not, stop the run.
    key_variable: environment variable with the key; None sends none.
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

  def __post_init__(self):
    for name, least in (
      ("temperature", 0),
      ("max_tokens", 1),
      ("concurrency", 1),
      ("retries", 0),
      ("backoff_s", 0),
      ("give_up", 1),
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
  """

  asked: int = 0
  unanswered: int = 0
  cut: int = 0
  retries: int = 0


class Endpoint:
  """Judge at `url` (".../v1"; chat/completions is appended).

  Raises:
    ValueError: the key's variable is not set, or holds what no header can.
  """

  def __init__(self, url: str, model: str, settings: Settings | None = None):
    self.url, self.model = url.rstrip("/"), model
    self.settings = settings or Settings()
    self.tally = Tally()
    self._opener = request.build_opener(_NoRedirects)
    _key(self.settings.key_variable)

  def describe(self) -> dict[str, str | float | int]:
    settings = self.settings
    return {
      "kind": "endpoint",
      "url": self.url,
      "model": self.model,
      "temperature": settings.temperature,
      "max_tokens": settings.max_tokens,
      "seed": settings.seed,
    }

  def answers(self, questions: Sequence[Question]) -> list[str | None]:
    """Raw replies in order; None where all tries failed or one question is refused.

    Both are logged. A question is refused with 400, 413 or 422: one that is too long
    must not keep all others from being judged.

    Raises:
      ValueError: the server refuses (another 4xx, a redirect, or `give_up` questions in
        a row); its message is shown.
      ConnectionError: `give_up` questions in a row had no reply.
    """
    found: list[str | None] = [None] * len(questions)
    work = _Work(self)

    def ask(numbered: tuple[int, Question]) -> None:
      place, question = numbered
      found[place] = work.answer(place, question)

    try:
      threads.each(ask, enumerate(questions), self.settings.concurrency)
    finally:
      self.tally = Tally(*map(sum, zip(self.tally, work.tally, strict=True)))
    return found

  def post(self, question: Question) -> Any:
    """One request's JSON.

    Raises:
      ValueError: the server refuses.
      _Refused: it refuses this question.
      _Failed: it is worth another try.
    """
    key = _key(self.settings.key_variable)
    headers = {"Content-Type": "application/json", "User-Agent": _AGENT}
    if key is not None:
      headers["Authorization"] = f"Bearer {key}"
    body = json.dumps(self._body(question)).encode()
    asked = request.Request(f"{self.url}/chat/completions", body, headers)
    try:
      with self._opener.open(asked, timeout=self.settings.timeout_s) as answer:
        content = answer.read()
    except url_error.HTTPError as error:
      with error:
        raise self._refusal(error, key) from None
    except (OSError, http.client.HTTPException) as error:
      reason = getattr(error, "reason", None) or error
      raise _Failed(f"{type(error).__name__}: {reason}") from None
    return _parsed(_decoded(content, key))

  def _body(self, question: Question) -> dict[str, Any]:
    turns = [("system", question.system)] if question.system else []
    turns.append(("user", question.text))
    return {
      "model": self.model,
      "messages": [{"role": role, "content": text} for role, text in turns],
      "temperature": self.settings.temperature,
      "max_tokens": self.settings.max_tokens,
      "seed": self.settings.seed,
    }

  def _refusal(self, error: url_error.HTTPError, key: str | None) -> Exception:
    said = f"{error.code} {_message(_decoded(_read(error), key))}"
    if error.code in _TO_TRY_AGAIN or error.code >= 500:
      return _Failed(said, _seconds(error.headers))
    if error.code < 400:
      said += "; redirects are not followed: name the address that it leads to"
    refusal = f"the judge {self.model!r} at {self.url} refuses: {said}"
    return (_Refused if error.code in _OF_THE_QUESTION else ValueError)(refusal)


class _Failed(Exception):
  """A try that is worth another one; `wait_s` is what the server asks for."""

  def __init__(self, why: str, wait_s: float | None = None):
    super().__init__(why)
    self.wait_s = wait_s


class _Refused(Exception):
  """A question that the server does not take, however often it is asked."""


class _NoRedirects(request.HTTPRedirectHandler):
  def redirect_request(self, *_: Any) -> None:
    return None


class _Work:
  """The tries of one call of `answers`, by several threads."""

  def __init__(self, endpoint: Endpoint):
    self.tally = Tally()
    self._endpoint, self._settings = endpoint, endpoint.settings
    self._lock, self._stop = threading.Lock(), threading.Event()
    self._in_a_row = 0

  def answer(self, place: int, question: Question) -> str | None:
    """The reply, or None once all tries have failed."""
    try:
      return self._tried(place, question)
    except BaseException:
      self._stop.set()  # others need not sleep on
      raise

  def _tried(self, place: int, question: Question) -> str | None:
    self._count(asked=1)
    for number in range(self._settings.retries + 1):
      try:
        text, cut = _reply(self._endpoint.post(question))
      except _Refused as refused:
        self._refused(place, refused)
        return None
      except _Failed as failed:
        why = failed
      else:
        self._done(place, cut)
        return text
      if number < self._settings.retries:
        self._count(retries=1)
        if self._stop.wait(_wait_s(self._settings.backoff_s, number, why.wait_s)):
          return None
    self._unanswered(place, why)
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

  def _refused(self, place: int, why: _Refused) -> None:
    logging.warning("no reply to question %d: %s", place, why)
    if self._lost() >= self._settings.give_up:
      raise ValueError(str(why))

  def _lost(self) -> int:
    """Counts one more; how many in a row there are."""
    self._count(unanswered=1)
    with self._lock:
      self._in_a_row += 1
      return self._in_a_row

  def _unanswered(self, place: int, why: _Failed) -> None:
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


def _reply(value: Any) -> tuple[str, bool]:
  """(text, whether max_tokens cut it) of a completion."""
  try:
    first = value["choices"][0]
    text, reason = first["message"]["content"], first.get("finish_reason")
  except (KeyError, IndexError, TypeError, AttributeError):
    raise _Failed(f"no chat completion: {json.dumps(value)[:_SHOWN]}") from None
  if text is None and reason == "length":
    return "", True  # all of it went into a thought that the server keeps apart
  if not isinstance(text, str):
    raise _Failed(f"a completion without text (finish_reason {reason!r})")
  return text, reason == "length"


def _parsed(text: str) -> Any:
  try:
    return json.loads(text)
  except (ValueError, RecursionError):
    raise _Failed(f"not JSON: {text[:_SHOWN]!r}") from None


def _key(variable: str | None) -> str | None:
  """The key; no error tells any of it."""
  if variable is None:
    return None
  key = os.environ.get(variable, "").strip()
  if not key:
    raise ValueError(f"the environment variable {variable!r} for the key is not set")
  if not (key.isascii() and key.isprintable() and " " not in key):
    raise ValueError(
      f"the environment variable {variable!r} holds no key: it has "
      "characters that a header cannot carry"
    )
  return key


def _decoded(content: bytes, key: str | None) -> str:
  """Text without the key, which a server may repeat in its message."""
  text = content.decode(errors="replace").strip()
  return text if key is None else text.replace(key, "<key>")


def _read(error: url_error.HTTPError) -> bytes:
  try:
    return error.read()
  except (OSError, http.client.HTTPException):
    return b""


def _message(text: str) -> str:
  """What a server says is wrong, as OpenAI and vLLM put it, else the body."""
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    return text[:_SHOWN]
  while isinstance(value, dict):
    inner = [value[name] for name in ("error", "message", "detail") if name in value]
    if not inner:
      break
    value = inner[0]
  return str(value)[:_SHOWN]


def _seconds(headers: Message) -> float | None:
  """Retry-After in seconds; a date is left to our own wait."""
  given = headers.get("Retry-After", "")
  return float(given) if given.isdigit() else None
