"""Replies read from rollouts that are written here by hand."""

import numpy as np
import pytest

from stepaudio_jax import sampling
from stepaudio_jax.core.types import Rollout
from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.evals.parts import prompts as prompts_lib
from stepaudio_jax.evals.parts.replies import Options, replies
from tests.evals import worlds

SAID = ("A dark voice.\n</think>\n It is low. ", "It never closes")
NEW = 30


@pytest.fixture(scope="module")
def model():
  return worlds.model()


QUESTIONS = ("How high?", "How fast?", "Who?")


def asked(model, folder, thinking=True, questions=QUESTIONS, max_tokens=100):
  """Prompts of text alone."""
  talks = []
  for number, question in enumerate(questions):
    messages = [{"role": "user", "content": question}]
    row = Row({"id": f"t{number}", "messages": messages}, "here", str(folder))
    talks.append(schema.dialogue(row))
  return prompts_lib.prompts(
    model, talks, str, folder, max_tokens=max_tokens, thinking=thinking
  )


def test_a_reply_ends_with_its_stop_token(model, tmp_path, monkeypatch):
  tokenizer = model.tokenizer
  stop, pad = tokenizer.special.eot, tokenizer.special.pad
  options = Options(batch_size=2, max_new_tokens=NEW, temperature=0.5, samples=2)

  def sample(params, batch, rng, *, copies, temperature, stream_B, **_):
    assert (copies, temperature, len(stream_B)) == (2, 0.5, 2)
    assert set(params) == {"adaptor", "decoder"}
    assert len(batch.token_BT) == 2
    rows = 2 * copies
    token_BT = np.full((rows, NEW), pad)
    mask_BT = np.zeros((rows, NEW), bool)
    for row in range(rows):
      ids = tokenizer.encode(SAID[row % 2]) + [stop] * (row % 2 == 0)
      token_BT[row, : len(ids)], mask_BT[row, : len(ids)] = ids, True
    logprob_BT = np.where(mask_BT, -np.arange(rows)[:, None] - 0.5, 0.0)
    cut_B = np.arange(rows) % 2 == 1
    return Rollout(token_BT, logprob_BT, mask_BT, mask_BT.sum(1), cut_B)

  monkeypatch.setattr(sampling, "sample", sample)
  said = list(replies(model, asked(model, tmp_path), options))
  # Three prompts in two batches; the empty fourth row says nothing.
  assert [(r.prompt.id, r.sample) for r in said] == [
    (f"t{prompt}#0", sample) for prompt in range(3) for sample in range(2)
  ]
  closed, unclosed = said[:2]
  assert closed.token_ids == (*tokenizer.encode(SAID[0]), stop)
  assert closed.text == SAID[0]
  assert (closed.think, closed.answer) == ("A dark voice.", "It is low.")
  assert (unclosed.think, unclosed.answer) == (SAID[1], None)
  assert (closed.truncated, unclosed.truncated) == (False, True)
  assert set(unclosed.logprobs) == {-1.5}
  assert len(unclosed.logprobs) == len(unclosed.token_ids)
  # After an empty thought all is answer.
  at_once = [r.answer for r in replies(model, asked(model, tmp_path, False), options)]
  assert at_once[:2] == ["It is low.", SAID[1]]


def test_logits_that_are_not_finite_are_an_error(model, tmp_path, monkeypatch):
  def sample(params, batch, rng, **_):
    ones_BT = np.ones((len(batch.token_BT), 1), np.int32)
    one_B = ones_BT[:, 0]
    return Rollout(ones_BT, ones_BT * np.nan, ones_BT > 0, one_B, one_B > 0)

  monkeypatch.setattr(sampling, "sample", sample)
  options = Options(batch_size=4, max_new_tokens=1, temperature=0.0)
  with pytest.raises(FloatingPointError, match="t0#0"):
    list(replies(model, asked(model, tmp_path), options))


def test_rows_are_as_long_as_the_longest_prompt_rounded_up(model, tmp_path):
  short = asked(model, tmp_path)
  assert short.limits.max_tokens == 32
  assert (short.limits.max_clips, short.limits.max_clip_frames) == (0, 0)
  long = ["one two three four " * 10]
  (prompt,) = asked(model, tmp_path, questions=long, max_tokens=400).fitting
  longest = len(prompt.example.token_T)
  assert longest > 32
  assert longest % 32 != 0
  for room, wanted in ((400, -longest // 32 * -32), (longest, longest)):
    found = asked(model, tmp_path, questions=long, max_tokens=room)
    assert found.limits.max_tokens == wanted


def test_streams_are_those_of_the_ids(model, tmp_path):
  streams = [prompt.stream for prompt in asked(model, tmp_path).fitting]
  again = [prompt.stream for prompt in asked(model, tmp_path, False).fitting]
  assert streams == again
  assert len(set(streams)) == 3
  assert all(0 <= stream < 2**31 for stream in streams)
