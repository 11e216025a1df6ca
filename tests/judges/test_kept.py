"""Replies of an endpoint on disk: a re-run asks nothing, damage is asked for again."""

import base64
import io
import json
import math
import threading

import numpy as np
import pytest
import soundfile
from absl import logging

from stepaudio_jax.core import levels
from stepaudio_jax.judges import comparing, endpoint, kept
from stepaudio_jax.judges.comparing import Comparer, Pair
from stepaudio_jax.judges.kept import Kept, Said
from stepaudio_jax.judges.questions import Question
from tests.judges import servers
from tests.judges.test_endpoint import asked as quick
from tests.judges.test_endpoint import number_of, questions


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
  servers.without_proxies(monkeypatch)


@pytest.fixture
def told(monkeypatch):
  found = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: found.append(text % args))
  return found


def asked(url, cache, **settings):
  made = quick(url, **settings)
  return endpoint.Endpoint(url, made.model, made.settings, cache)


def entries(folder):
  return sorted(folder.rglob("*.json"))


USAGE = {"prompt_tokens": 100, "completion_tokens": 7}


def test_a_second_run_makes_no_call_and_costs_nothing(tmp_path):
  def reply(_, body):
    return servers.completion(f"said {number_of(body)}", usage=USAGE)

  prices = {"prompt_price": 2.0, "completion_price": 10.0}
  with servers.serving(reply) as server:
    first = asked(server.url, tmp_path, concurrency=4, **prices)
    said = first.answers(questions(8))
    second = asked(server.url, tmp_path, concurrency=4, **prices)
    assert second.answers(questions(8)) == said == [f"said {k}" for k in range(8)]
    assert len(server.requests) == 8
  assert first.tally == endpoint.Tally(8, prompt_tokens=800, completion_tokens=56)
  # 2 a million prompt tokens, 10 a million of the completions.
  assert first.cost == pytest.approx(800 * 2e-6 + 56 * 10e-6)
  assert second.tally == endpoint.Tally(8, cached=8)
  assert second.cost == 0


@pytest.mark.parametrize(
  ("name", "value"), [("temperature", 0.5), ("max_tokens", 9), ("seed", 4)]
)
def test_what_an_answer_depends_on_is_part_of_its_name(tmp_path, name, value):
  with servers.serving(lambda *_: servers.completion("YES")) as server:
    asked(server.url, tmp_path).answers(questions(1))
    asked(server.url, tmp_path, **{name: value}).answers(questions(1))
    asked(server.url, tmp_path, timeout_s=9.0).answers(questions(1))
    asked(server.url, tmp_path).answers([Question("Other.", "0?", "h")])
    assert len(server.requests) == 3  # the time-out changes no answer


def test_what_failed_is_not_kept(tmp_path, told):
  bad = {
    0: servers.Answer({"error": "overloaded"}, 503),
    1: servers.Answer(b'{"choices": [{"mess'),
    2: servers.Answer(None),
    3: servers.Answer({}, 400),
    4: servers.completion(None),
  }

  def reply(_, body):
    return bad.get(number_of(body), servers.completion("YES"))

  with servers.serving(reply) as server:
    judge = asked(server.url, tmp_path, retries=1, give_up=9)
    assert judge.answers(questions(6)) == [None] * 5 + ["YES"]
    assert len(entries(tmp_path)) == 1
    bad.clear()
    again = asked(server.url, tmp_path)
    assert again.answers(questions(6)) == ["YES"] * 6
  assert judge.tally == endpoint.Tally(6, unanswered=5, retries=4)
  assert again.tally == endpoint.Tally(6, cached=1)
  assert len(told) == 5


@pytest.mark.parametrize(
  "damage",
  [
    lambda path: path.write_text(path.read_text()[:-9]),
    lambda path: path.write_text("[]"),
    lambda path: path.write_bytes(b"\xff\xfe"),
    lambda path: path.write_text(path.read_text().replace("said/1", "said/0")),
    lambda path: path.write_text(path.read_text().replace('"YES"', "17")),
    lambda path: path.write_text(path.read_text().replace(path.stem, "0" * 64)),
    lambda path: path.write_text(path.read_text().replace("null", "[0.5, 0.5]")),
    lambda path: path.write_text(path.read_text().replace("null", '["a"]')),
  ],
)
def test_a_damaged_entry_is_asked_for_again_and_counted(tmp_path, told, damage):
  with servers.serving(lambda *_: servers.completion("YES")) as server:
    asked(server.url, tmp_path).answers(questions(2))
    damage(entries(tmp_path)[0])
    judge = asked(server.url, tmp_path)
    assert judge.answers(questions(2)) == ["YES", "YES"]
    assert judge.tally == endpoint.Tally(2, cached=1, damaged=1)
    assert len(server.requests) == 3
    assert asked(server.url, tmp_path).answers(questions(2)) == ["YES", "YES"]
    assert len(server.requests) == 3  # it was put right
  assert "is damaged" in told[0]


def test_what_a_kill_leaves_is_no_entry(tmp_path, monkeypatch):
  name = kept.key("http://h/v1", {"model": "m"})
  store = Kept(tmp_path)
  store.write(name, Said("YES", False, 3, 1))
  (path,) = entries(tmp_path)

  def killed(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(kept.json, "dumps", killed)
    with pytest.raises(KeyboardInterrupt):
      store.write(name, Said("NO", False))
  assert store.read(name) == Said("YES", False, 3, 1)
  assert [*path.parent.iterdir()] == [path]
  assert store.read("ab" * 32) is None


def test_many_threads_write_and_read_one_entry(tmp_path):
  name = kept.key("http://h/v1", {"model": "m"})
  seen = []

  def work(k):
    for _ in range(20):
      Kept(tmp_path).write(name, Said(f"said {k}" * 1000, False))
      seen.append(Kept(tmp_path).read(name).text)

  threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(30)
  assert len(seen) == 80
  assert set(seen) <= {f"said {k}" * 1000 for k in range(4)}


def test_a_server_that_drips_is_cut_as_a_whole(tmp_path, told):
  """Each wait is short; all of them together would take ten seconds."""

  def reply(number, _):
    said = servers.completion("YES")
    return said if number else servers.Answer(said.body, pause_s=0.1)

  with servers.serving(reply) as server:
    judge = asked(server.url, tmp_path, timeout_s=0.3)
    assert judge.answers(questions(1)) == ["YES"]
    assert not server.dripped
  assert judge.tally == endpoint.Tally(1, retries=1)


def test_a_server_that_only_drips_or_breaks_leaves_masks(tmp_path, told):
  def reply(_, body):
    dripping = servers.Answer({}, pause_s=0.1)
    return (servers.completion("4"), dripping, servers.Answer(None))[number_of(body)]

  with servers.serving(reply) as server:
    judge = asked(server.url, tmp_path, timeout_s=0.2, retries=1)
    assert judge.answers(questions(3)) == ["4", None, None]
  assert "no whole answer within 0.2 s" in told[0]
  assert judge.tally == endpoint.Tally(3, unanswered=2, retries=2)


def test_from_an_endpoint_to_masked_rewards(tmp_path, told):
  """Two pairs, both orders: one judgement is nonsense, one is lost."""

  def reply(_, body):
    text = body["messages"][-1]["content"]
    if "Reply A:\nx" in text:
      return servers.completion("Reasons.\nLevel: 2")
    if "Reply A:\ny" in text:
      return servers.completion("5")
    if "Reply A:\nz" in text:
      return servers.completion("It depends.")
    return servers.Answer(b"<html>", 500)

  history = [{"role": "human", "content": "Well?"}]
  pairs = [Pair(history, *each) for each in (("x", "y"), ("x", "z"), ("x", "w"))]
  with servers.serving(reply) as server:
    for _ in range(2):
      judge = asked(server.url, tmp_path, retries=0, concurrency=3)
      comparer = Comparer(judge)
      found = [each.value for each in comparer.both(pairs)]
      np.testing.assert_array_equal(found, [0.6, np.nan, np.nan])
      assert comparer.tally == comparing.Tally(6, 6, unread=2, pairs=1)
    # What was said is kept, readable or not; what was lost is asked for again.
    assert len(server.requests) == 6 + 1
  assert judge.tally == endpoint.Tally(6, unanswered=1, cached=5)


def likely(*steps):
  """Logprobs of tokens, each with its alternatives by their probabilities."""
  return {
    "content": [
      {
        "token": token,
        "top_logprobs": [
          {"token": name, "logprob": math.log(p)} for name, p in others.items()
        ],
      }
      for token, others in steps
    ]
  }


def test_an_endpoint_that_tells_its_likeliest_tokens(tmp_path):
  """½·.6 + ¼·(−.2) of 3/4 in all is 1/3; "2" is no level where it counts replies.

  The ½ are those of " 2" and of "2", two tokens of one number.
  """
  steps = likely(
    ("2", {"2": 0.9, "3": 0.1}),
    (" of both\nLevel:", {"x": 1.0}),
    (" 2", {" 2": 0.45, "4": 0.25, "the": 0.25, "2": 0.05}),
  )
  text = "2 of both\nLevel: 2"
  answers = [
    servers.completion(text, logprobs=steps),
    servers.completion(text),
    servers.completion("None.", logprobs=steps),
    servers.completion(text, logprobs={"content": [{"token": "2"}]}),
  ]

  def reply(_, body):
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    return answers[number_of(body)]

  with servers.serving(reply) as server:
    for _ in range(2):
      judge = asked(server.url, tmp_path, weighs=True)
      (said, weight), *others = judge.weighed(questions(4))
      assert said == text
      np.testing.assert_allclose(weight, [0, 0.5, 0, 0.25, 0, 0])
      assert levels.expected(weight) == pytest.approx(1 / 3)
      assert others == [(text, None), ("None.", None), (text, None)]
    assert len(server.requests) == 4
  assert judge.tally.cached == 4
  assert Comparer(judge, expected=True).tally.asked == 0
  plain = asked(server.url, tmp_path)
  with pytest.raises(ValueError, match=r"asking.weighs.*'endpoint'"):
    Comparer(plain, expected=True)
  with pytest.raises(ValueError, match="is not asked for likely tokens"):
    plain.weighed(questions(1))


def test_sounds_are_sent_to_a_judge_that_hears(tmp_path, told):
  tone_N = (8000 * np.sin(np.arange(16_000) / 9)).astype(np.int16)
  soundfile.write(tmp_path / "a.flac", tone_N, 16_000)
  block = {"type": "audio", "path": str(tmp_path / "a.flac"), "end_s": 0.5}
  talk = [{"role": "human", "content": [block, {"type": "text", "text": "Well?"}]}]
  lost = [{"role": "human", "content": [{"type": "audio", "path": "no/file.wav"}]}]
  asks = [comparing.question(Pair(each, "x", "y")) for each in (talk, lost)]
  with servers.serving(lambda *_: servers.completion("4")) as server:
    judge = asked(server.url, tmp_path / "cache", hears=True)
    assert judge.answers(asks) == ["4", None]
    assert asked(server.url, tmp_path / "cache").answers(asks) == ["4", "4"]
  assert judge.describe()["hears"] is True
  assert "its sound cannot be read: " in told[0]
  content = server.requests[0][2]["messages"][-1]["content"]
  assert [each["type"] for each in content] == ["text", "input_audio", "text"]
  sent = content[1]["input_audio"]
  assert sent["format"] == "wav"
  samples_N, rate = soundfile.read(
    io.BytesIO(base64.b64decode(sent["data"])), dtype="int16"
  )
  assert rate == 16_000
  np.testing.assert_allclose(samples_N, tone_N[:8000], atol=1)
  # A judge that does not hear is told where the sound was.
  assert "human: [audio] Well?" in server.requests[1][2]["messages"][-1]["content"]
  assert json.dumps(judge.describe())
