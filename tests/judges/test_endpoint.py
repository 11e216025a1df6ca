"""A judge behind HTTP: a server in this process answers, well or badly."""

import signal
import socket
import threading
import time

import pytest
from absl import logging

from stepaudio_jax.judges import endpoint
from stepaudio_jax.judges.questions import Question, Template
from tests.judges import servers

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
  servers.without_proxies(monkeypatch)


def questions(n: int) -> list[Question]:
  template = Template("{number}?", system="Judge.")
  return [template.ask(number=str(k)) for k in range(n)]


def asked(url: str, **settings) -> endpoint.Endpoint:
  quick = {"backoff_s": 0.001, "timeout_s": 10.0, "retries": 2, "concurrency": 1}
  return endpoint.Endpoint(url, "m/odel", endpoint.Settings(**quick | settings))


def number_of(body: dict) -> int:
  return int(body["messages"][-1]["content"].removesuffix("?"))


def test_what_is_sent():
  with servers.serving(lambda *_: servers.completion("YES")) as server:
    judge = asked(server.url + "/", max_tokens=7, seed=3)
    plain = Question("", "Alone?", "hash")
    assert judge.answers([*questions(1), plain]) == ["YES", "YES"]
  (path, headers, body), (_, _, second) = server.requests
  assert path == "/v1/chat/completions"
  assert "Authorization" not in headers
  assert headers["User-Agent"] == "stepaudio_jax"
  assert body == {
    "model": "m/odel",
    "messages": [
      {"role": "system", "content": "Judge."},
      {"role": "user", "content": "0?"},
    ],
    "temperature": 0.0,
    "max_tokens": 7,
    "seed": 3,
  }
  assert second["messages"] == [{"role": "user", "content": "Alone?"}]


def test_replies_keep_the_order_of_the_questions_under_concurrency():
  together = threading.Barrier(4)

  def reply(number, body):
    if number < 4:
      together.wait(10)  # four are at work at once, or this breaks
    time.sleep(0.002 * (3 - number % 4))
    return servers.completion(f"said {number_of(body)}")

  with servers.serving(reply) as server:
    found = asked(server.url, concurrency=4).answers(questions(12))
  assert found == [f"said {k}" for k in range(12)]
  assert server.most == 4


def test_an_interrupt_ends_the_tries_of_every_question():
  """Ctrl-C while both of two questions are tried: neither is tried a second time."""
  together = threading.Barrier(2)

  def reply(number, body):
    if together.wait(10) == 0:
      signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(0.2)  # it has been noticed by then
    return servers.Answer({"error": "overloaded"}, 503)

  with servers.serving(reply) as server:
    judge = asked(server.url, concurrency=2, backoff_s=0.05, retries=5)
    with pytest.raises(KeyboardInterrupt):
      judge.answers(questions(2))
    together.abort()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
  "bad",
  [
    servers.Answer({"error": {"message": "slow down"}}, 429),
    servers.Answer({"error": "overloaded"}, 503),
    servers.Answer({"error": "took too long"}, 408),
    servers.Answer(b"<html>bad gateway</html>", 502),
    servers.Answer(b'{"choices": [{"mess'),
    servers.Answer(b"[]"),
    servers.Answer({"choices": []}),
    servers.Answer({"error": {"message": "engine died"}}),
    servers.completion(None),
    servers.Answer(b"short", 200, {"Content-Encoding": "none", "Content-Length": "99"}),
  ],
)
def test_what_may_pass_is_tried_again(bad):
  def reply(number, _):
    return bad if number < 2 else servers.completion("YES")

  with servers.serving(reply) as server:
    judge = asked(server.url, timeout_s=0.3)
    assert judge.answers(questions(1)) == ["YES"]
  assert len(server.requests) == 3
  assert judge.tally == endpoint.Tally(asked=1, unanswered=0, cut=0, retries=2)


def test_a_question_whose_tries_are_spent_is_none_and_logged(monkeypatch):
  told = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: told.append(text % args))

  def reply(_, body):
    bad = servers.Answer({"detail": "out of memory"}, 500)
    return bad if number_of(body) == 1 else servers.completion("NO")

  with servers.serving(reply) as server:
    judge = asked(server.url)
    assert judge.answers(questions(3)) == ["NO", None, "NO"]
  assert told == ["no reply to question 1 after 3 tries: 500 out of memory"]
  assert judge.tally == endpoint.Tally(asked=3, unanswered=1, cut=0, retries=2)


def test_a_server_that_answers_nothing_stops_the_run():
  with servers.serving(lambda *_: servers.Answer("down", 500)) as server:
    judge = asked(server.url, retries=0, give_up=3)
    with pytest.raises(ConnectionError, match=r"3 questions in a row .* 500 down"):
      judge.answers(questions(10))
  assert len(server.requests) == 3


def test_questions_without_a_reply_do_not_add_up_over_those_with_one():
  def reply(number, _):
    return servers.Answer("busy", 503) if number % 2 else servers.completion("YES")

  with servers.serving(reply) as server:
    judge = asked(server.url, retries=0, give_up=2)
    assert judge.answers(questions(6)) == ["YES", None] * 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_question_that_is_refused_does_not_stop_the_others(monkeypatch, status):
  told = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: told.append(text % args))
  refusal = servers.Answer({"error": {"message": "too many tokens"}}, status)

  def reply(_, body):
    return refusal if number_of(body) % 2 == 0 else servers.completion("YES")

  with servers.serving(reply) as server:
    judge = asked(server.url, give_up=2)
    assert judge.answers(questions(5)) == [None, "YES", None, "YES", None]
  assert len(server.requests) == 5  # nothing is asked again
  assert judge.tally == endpoint.Tally(asked=5, unanswered=3, cut=0, retries=0)
  assert len(told) == 3
  assert all(f"refuses: {status} too many tokens" in line for line in told)


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_every_question_stops_the_run(status):
  refusal = servers.Answer({"error": {"message": "no such m/odel"}}, status)
  with (
    servers.serving(lambda *_: refusal) as server,
    pytest.raises(ValueError, match=f"refuses: {status} no such m/odel"),
  ):
    asked(server.url, give_up=3).answers(questions(5))
  assert len(server.requests) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_stops_the_run_with_the_servers_words(status):
  refusal = servers.Answer({"error": {"message": "no such m/odel"}}, status)
  words = f"refuses: {status} no such m/odel"
  with (
    servers.serving(lambda *_: refusal) as server,
    pytest.raises(ValueError, match=words),
  ):
    asked(server.url).answers(questions(5))
  assert len(server.requests) == 1


def test_a_refusal_wakes_those_that_wait_for_another_try():
  waiting = threading.Event()

  def reply(_, body):
    if number_of(body) == 0:
      waiting.set()
      return servers.Answer({}, 429, {"Retry-After": "50"})
    waiting.wait(10)
    time.sleep(0.05)
    return servers.Answer({"error": {"message": "no"}}, 401)

  with servers.serving(reply) as server:
    done = threading.Event()

    def ask():
      with pytest.raises(ValueError, match="refuses"):
        asked(server.url, concurrency=2).answers(questions(2))
      done.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert done.wait(20)  # far less than the 50 s that the server asked for


def test_the_wait_doubles_and_heeds_the_server_within_a_limit():
  assert 1.0 <= endpoint._wait_s(1.0, 0, None) <= 1.25
  assert 8.0 <= endpoint._wait_s(1.0, 3, None) <= 10.0
  assert endpoint._wait_s(1.0, 0, 7.0) == 7.0
  assert endpoint._wait_s(1.0, 30, None) == endpoint.LONGEST_WAIT_S
  assert endpoint._wait_s(1.0, 0, 9999.0) == endpoint.LONGEST_WAIT_S


def test_a_server_that_says_nothing_runs_into_the_timeout():
  release = threading.Event()

  def reply(number, _):
    if number == 0:
      release.wait(10)
    return servers.completion("YES")

  with servers.serving(reply) as server:
    judge = asked(server.url, timeout_s=0.2)
    assert judge.answers(questions(1)) == ["YES"]
    release.set()
  assert judge.tally.retries == 1


def test_nobody_at_the_address():
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    with pytest.raises(ConnectionError, match=r"1 questions in a row.*refused"):
      asked(url, give_up=1).answers(questions(1))


def test_a_cut_reply_is_said(monkeypatch):
  told = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: told.append(text % args))

  def reply(_, body):
    text = ["whole", '{"score": 1', None][number_of(body)]
    return servers.completion(text, "stop" if text == "whole" else "length")

  with servers.serving(reply) as server:
    judge = asked(server.url, max_tokens=5)
    assert judge.answers(questions(3)) == ["whole", '{"score": 1', ""]
  assert told == [f"the judge's reply {k} was cut at max_tokens=5" for k in (1, 2)]
  assert judge.tally.cut == 2


def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch):
  monkeypatch.setenv("JUDGE_KEY", KEY + "\n")
  told = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: told.append(text % args))
  long = {"error": {"message": "x" * 495 + KEY}}

  def reply(number, _):
    echoes = [
      servers.completion("YES"),
      servers.Answer({"error": {"message": f"slow, {KEY}"}}, 429),
      servers.Answer(KEY.encode()),
      servers.Answer({"note": KEY}),
      servers.Answer(long, 401),
    ]
    return echoes[number]

  with servers.serving(reply) as server:
    judge = asked(server.url, key_variable="JUDGE_KEY", retries=0)
    assert judge.answers(questions(4)) == ["YES", None, None, None]
    with pytest.raises(ValueError, match="refuses") as refused:
      judge.answers(questions(1))
  headers = [headers for _, headers, _ in server.requests]
  assert all(one["Authorization"] == f"Bearer {KEY}" for one in headers)
  shown = [*told, str(refused.value), repr(judge.describe()), repr(vars(judge))]
  assert len(told) == 3
  assert KEY[:5] not in "".join(shown)


@pytest.mark.parametrize("value", [None, "", "  ", "two keys", "kéy", "a\nb"])
def test_a_key_that_cannot_be_sent_is_named_by_its_variable(monkeypatch, value):
  monkeypatch.delenv("JUDGE_KEY", raising=False)
  if value is not None:
    monkeypatch.setenv("JUDGE_KEY", value)
  with pytest.raises(ValueError, match="JUDGE_KEY") as error:
    asked("http://127.0.0.1:9/v1", key_variable="JUDGE_KEY")
  assert not value or not value.strip() or value not in str(error.value)


def test_the_key_does_not_follow_a_redirect(monkeypatch):
  monkeypatch.setenv("JUDGE_KEY", KEY)
  with servers.serving(lambda *_: servers.completion("YES")) as other:
    away = servers.Answer({}, 302, {"Location": f"{other.url}/chat/completions"})
    with (
      servers.serving(lambda *_: away) as server,
      pytest.raises(ValueError, match="redirects are not followed"),
    ):
      asked(server.url, key_variable="JUDGE_KEY").answers(questions(1))
  assert not other.requests


def test_a_proxy_of_the_environment_is_used(monkeypatch):
  with servers.serving(lambda *_: servers.completion("YES")) as proxy:
    monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert asked("http://judge.invalid/v1").answers(questions(1)) == ["YES"]
  assert proxy.requests[0][0] == "http://judge.invalid/v1/chat/completions"


def test_no_question_is_no_request():
  assert asked("http://127.0.0.1:9/v1").answers([]) == []


def test_what_is_recorded():
  assert asked("http://h:1/v1/", temperature=0.5).describe() == {
    "kind": "endpoint",
    "url": "http://h:1/v1",
    "model": "m/odel",
    "temperature": 0.5,
    "max_tokens": 4096,
    "seed": 0,
  }


@pytest.mark.parametrize(
  ("name", "value"),
  [("max_tokens", 0), ("concurrency", 0), ("retries", -1), ("timeout_s", 0.0)],
)
def test_impossible_settings(name, value):
  with pytest.raises(ValueError, match=f"{name}={value}"):
    endpoint.Settings(**{name: value})
