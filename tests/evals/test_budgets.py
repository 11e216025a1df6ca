"""Thoughts that are closed for the model; the answers behind them by another road."""

import numpy as np
import pytest

from stepaudio_jax.core import replies as replies_core
from stepaudio_jax.data.schema import Dialogue
from stepaudio_jax.evals.parts import budgets
from stepaudio_jax.evals.parts import replies as drawing
from stepaudio_jax.evals.parts.replies import Options
from stepaudio_jax.evals.parts.speaker import Speaker
from stepaudio_jax.models.step_audio import StepAudio
from tests.evals import worlds
from tests.evals.test_replies import asked
from tests.models import batches

NEW = 6


@pytest.fixture(scope="module")
def model():
  return worlds.model()


def forced(model, folder, budget, **changed):
  prompts = asked(model, folder)
  params = {part: model.params[part] for part in ("adaptor", "decoder")}
  settings = {"batch_size": 4, "max_new_tokens": NEW, "temperature": 0.0} | changed
  options = Options(**settings)
  return budgets.replies(
    params, model, prompts.fitting, prompts, options, budget=budget
  )


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_an_open_thought_is_closed_and_the_answer_is_the_models_own(
  model, tmp_path, budget
):
  """Each answer's token is the likeliest one of a plain forward pass."""
  closing = model.tokenizer.encode("\n</think>\n")
  for reply in forced(model, tmp_path, budget):
    ids = list(reply.token_ids)
    assert ids[budget : budget + len(closing)] == closing
    assert budget + len(closing) < len(ids) <= budget + len(closing) + NEW
    assert reply.logprobs[budget : budget + len(closing)] == (0.0,) * len(closing)
    assert reply.think == model.tokenizer.decode(ids[:budget]).strip()
    assert reply.answer is not None
    assert (reply.think, reply.answer) == replies_core.split_reply(reply.text)
    prompt_T = reply.prompt.example.token_T
    logits_TV = plain_logits(model, [*prompt_T, *ids])
    likeliest_T = logits_TV.argmax(axis=1)
    drawn = [*range(budget), *range(budget + len(closing), len(ids))]
    for place in drawn:
      assert ids[place] == likeliest_T[len(prompt_T) + place - 1]


def plain_logits(model, ids):
  params = {part: model.params[part] for part in ("adaptor", "decoder")}
  batch = batches.text_batch([ids])
  return np.asarray(StepAudio(model.size).apply({"params": params}, batch))[0]


def test_samples_of_a_prompt_have_answers_of_their_own(model, tmp_path):
  said = forced(model, tmp_path, 2, samples=3, temperature=1.0)
  assert [(r.prompt.id, r.sample) for r in said] == [
    (f"t{prompt}#0", sample) for prompt in range(3) for sample in range(3)
  ]
  assert len({reply.token_ids[-NEW:] for reply in said}) == 9
  again = forced(model, tmp_path, 2, samples=3, temperature=1.0)
  assert [reply.token_ids for reply in again] == [reply.token_ids for reply in said]


def test_what_ended_in_time_stays_and_a_closed_thought_is_not_closed_again(
  model, tmp_path, monkeypatch
):
  special, encode = model.tokenizer.special, model.tokenizer.encode
  first = {
    "t0#0": ([*encode("Dark.\n</think>\nlow"), special.eot], False),
    "t1#0": (encode("Dark.\n</think>\nlo"), True),
    "t2#0": ([*encode("Dark."), special.eot], False),  # it ended without an answer
  }
  seen = []

  def batch(params, model, asked, prompts, options):
    seen.append([(prompt.id, list(prompt.example.token_T)) for prompt in asked])
    if len(seen) == 1:
      assert options.max_new_tokens == 30
      return [spoken(model, prompt, *first[prompt.id]) for prompt in asked]
    return [spoken(model, p, [*encode("w"), special.eot], False) for p in asked]

  monkeypatch.setattr(drawing, "batch", batch)
  done, cut, silent = forced(model, tmp_path, 30)
  assert [reply.answer for reply in (done, cut, silent)] == ["low", "low", None]
  # Only the second is asked on, behind exactly what it had said.
  ((name, tokens),) = seen[1]
  assert name == "t1#0/0"
  assert tokens == [*seen[0][1][1], *first["t1#0"][0]]
  assert not cut.truncated


def spoken(model, prompt, ids, truncated):
  text = model.tokenizer.decode(ids)
  think, answer = replies_core.split_reply(text)
  logprobs = (-1.0,) * len(ids)
  return drawing.Reply(prompt, 0, tuple(ids), logprobs, text, think, answer, truncated)


def test_a_dialogue_without_room_for_the_budget_fails(model, tmp_path):
  talk = Dialogue(
    "t", {"id": "t", "messages": [{"role": "human", "content": [worlds.text("a")]}]}, ()
  )
  speaker = Speaker(model, tmp_path)
  options = Options(batch_size=1, max_new_tokens=4, temperature=0.0)
  (rows,) = speaker.answers([talk], options, {"t"}, budget=500)
  assert "there is room for" in rows[0]["failed"]
  ((row,),) = speaker.answers([talk], options, {"t"}, budget=3)
  assert row["failed"] is None
