"""A chat-completions server in a thread of the test's own process."""

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclasses.dataclass(frozen=True)
class Answer:
  """What the server sends back.

  Attributes:
    body: None breaks the connection without a word.
    pause_s: before each byte, of the headers too.
  """

  body: Any
  status: int = 200
  headers: dict[str, str] = dataclasses.field(default_factory=dict)
  pause_s: float = 0.0


def without_proxies(monkeypatch: Any) -> None:
  """A proxy of this machine's must not stand between a test and its own server."""
  for name in ("http_proxy", "https_proxy", "all_proxy"):
    monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(name.upper(), raising=False)


def completion(
  text: str | None, finish_reason: str = "stop", logprobs: Any = None, **more: Any
) -> Answer:
  message = {"role": "assistant", "content": text}
  choice = {"message": message, "finish_reason": finish_reason, "logprobs": logprobs}
  return Answer({"choices": [choice], **more})


class Server:
  """Requests so far, as (path, headers, body); `most` were answered at a time.

  `dripped` counts answers with pauses that went out whole.
  """

  def __init__(self, reply: Callable[[int, dict[str, Any]], Answer]):
    self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
    self.most = self.dripped = 0
    self._now, self._lock, self._reply = 0, threading.Lock(), reply
    self.url = ""

  def answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Answer:
    with self._lock:
      self.requests.append((path, headers, body))
      number = len(self.requests) - 1
      self._now += 1
      self.most = max(self.most, self._now)
    try:
      return self._reply(number, body)
    finally:
      with self._lock:
        self._now -= 1


@contextlib.contextmanager
def serving(reply: Callable[[int, dict[str, Any]], Answer]) -> Iterator[Server]:
  """Serves `reply` (number of the request, its body) while the block runs."""
  server = Server(reply)

  class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
      body = self.rfile.read(int(self.headers["Content-Length"]))
      answer = server.answer(self.path, dict(self.headers), json.loads(body))
      content = answer.body
      if not isinstance(content, bytes):
        content = json.dumps(content).encode()
      if answer.body is None:
        self.close_connection = True
        return
      if answer.pause_s:
        self._drip(content, answer.pause_s)
        return
      with contextlib.suppress(ConnectionError):  # the client may have lost patience
        self.send_response(answer.status)
        for name, value in answer.headers.items():
          self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _drip(self, content: bytes, pause_s: float) -> None:
      head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
      self.close_connection = True
      with contextlib.suppress(ConnectionError):
        for byte in head + content:
          time.sleep(pause_s)
          self.wfile.write(bytes([byte]))
        server.dripped += 1

    def log_message(self, *_: Any) -> None:
      """Not into the test's output."""

  http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  http.daemon_threads = True
  thread = threading.Thread(target=http.serve_forever, args=(0.01,))
  thread.start()
  server.url = f"http://127.0.0.1:{http.server_port}/v1"
  try:
    yield server
  finally:
    http.shutdown()
    http.server_close()
    thread.join()
