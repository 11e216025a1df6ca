"""One request to an endpoint: what it sends back as JSON, or why there is nothing.

Standard library only; http_proxy, https_proxy and no_proxy are respected. The key is
read from an environment variable at each request and kept nowhere; redirects are
refused, for they would take it elsewhere. A request that takes too long is cut, however
often the server gives a sign of life.
"""

import contextlib
import http.client
import json
import os
import socket
import threading
from email.message import Message
from typing import Any
from urllib import error as url_error
from urllib import request

SHOWN = 500  # characters of a server's message
# Beside 5xx: it took too long, somebody else was faster, or there were too many.
_TO_TRY_AGAIN = (408, 409, 425, 429)
# What a server says of one question: too long for it, or not to its taste.
_OF_THE_QUESTION = (400, 413, 422)
_AGENT = "stepaudio_jax"  # some servers turn Python's own name away


class Failed(Exception):
  """A try that is worth another one; `wait_s` is what the server asks for."""

  def __init__(self, why: str, wait_s: float | None = None):
    super().__init__(why)
    self.wait_s = wait_s


class Refused(Exception):
  """A question that the server does not take, however often it is asked."""


class Poster:
  """Sends requests to one address.

  Args:
    who: whose address it is, for errors.
    timeout_s: of connecting, of each wait for bytes, and of a request as a whole.
    key_variable: environment variable with the key; None sends none.

  Raises:
    ValueError: the key's variable is not set, or holds what no header can.
  """

  def __init__(self, url: str, who: str, timeout_s: float, key_variable: str | None):
    self.url, self._who, self._timeout_s = url, who, timeout_s
    self._key_variable = key_variable
    self._opener = request.build_opener(_NoRedirects, _Http, _Https)
    _key(key_variable)

  def post(self, body: bytes) -> Any:
    """What is answered, as JSON.

    Raises:
      ValueError: the server refuses.
      Refused: it refuses this question.
      Failed: it is worth another try.
    """
    key = _key(self._key_variable)
    headers = {"Content-Type": "application/json", "User-Agent": _AGENT}
    if key is not None:
      headers["Authorization"] = f"Bearer {key}"
    asked = request.Request(self.url, body, headers)
    with _Limit(self._timeout_s) as limit:
      asked.limit = limit
      try:
        with self._opener.open(asked, timeout=self._timeout_s) as answer:
          content = answer.read()
      except url_error.HTTPError as error:
        with error:
          raise self._refusal(error, key) from None
      except (OSError, http.client.HTTPException) as error:
        if limit.over:
          raise Failed(f"no whole answer within {self._timeout_s} s") from None
        reason = getattr(error, "reason", None) or error
        raise Failed(f"{type(error).__name__}: {reason}") from None
      if limit.over:  # a body of no declared length ends there like any other
        raise Failed(f"no whole answer within {self._timeout_s} s")
    return _parsed(_decoded(content, key))

  def _refusal(self, error: url_error.HTTPError, key: str | None) -> Exception:
    said = f"{error.code} {_message(_decoded(_read(error), key))}"
    if error.code in _TO_TRY_AGAIN or error.code >= 500:
      return Failed(said, _seconds(error.headers))
    if error.code < 400:
      said += "; redirects are not followed: name the address that it leads to"
    refusal = f"{self._who} refuses: {said}"
    return (Refused if error.code in _OF_THE_QUESTION else ValueError)(refusal)


class _Limit:
  """Shuts a socket down once the time is over, from wherever it is being read."""

  def __init__(self, seconds: float):
    self.over, self._lock = False, threading.Lock()
    self._socket: socket.socket | None = None
    self._timer = threading.Timer(seconds, self._end)
    self._timer.daemon = True

  def __enter__(self) -> "_Limit":
    self._timer.start()
    return self

  def __exit__(self, *_: Any) -> None:
    self._timer.cancel()

  def watch(self, watched: socket.socket) -> None:
    with self._lock:
      self._socket = watched
    if self.over:
      self._end()

  def _end(self) -> None:
    with self._lock:
      self.over = True
      if self._socket is not None:
        with contextlib.suppress(OSError):  # it has ended by itself
          self._socket.shutdown(socket.SHUT_RDWR)


class _Watched:
  """A handler that hands each connection's socket to the request's limit."""

  def do_open(self, http_class: Any, req: request.Request, **known: Any) -> Any:
    def connection(host: str, **more: Any) -> http.client.HTTPConnection:
      made = http_class(host, **more)
      connect = made.connect

      def connected() -> None:
        connect()
        req.limit.watch(made.sock)

      made.connect = connected
      return made

    return super().do_open(connection, req, **known)


class _Http(_Watched, request.HTTPHandler):
  """http, watched."""


class _Https(_Watched, request.HTTPSHandler):
  """https, watched."""


class _NoRedirects(request.HTTPRedirectHandler):
  def redirect_request(self, *_: Any) -> None:
    return None


def _parsed(text: str) -> Any:
  try:
    return json.loads(text)
  except (ValueError, RecursionError):
    raise Failed(f"not JSON: {text[:SHOWN]!r}") from None


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
    return text[:SHOWN]
  while isinstance(value, dict):
    inner = [value[name] for name in ("error", "message", "detail") if name in value]
    if not inner:
      break
    value = inner[0]
  return str(value)[:SHOWN]


def _seconds(headers: Message) -> float | None:
  """Retry-After in seconds; a date is left to our own wait."""
  given = headers.get("Retry-After", "")
  return float(given) if given.isdigit() else None
