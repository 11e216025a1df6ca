"""A checkpoint that hears two replies compared, and how sure it is of the level."""

import jax
import numpy as np
import pytest
from etils import epath

from stepaudio_jax.evals.parts import judging, replies, weighing
from stepaudio_jax.evals.parts.replies import Reply
from stepaudio_jax.judges import comparing
from stepaudio_jax.judges.comparing import Comparer, Pair
from stepaudio_jax.models.step_audio import StepAudio
from tests.evals import worlds

SAID = "{a} 2 of 3 is kind.\n</think>\nSo:\nLevel: {level}\nIt has 2 reasons."


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  folder = tmp_path_factory.mktemp("clips")
  return [worlds.write_noise(folder / f"{k}.wav", 8_000, seed=k) for k in range(2)]


def pair(clip, first="Yes.", second="No."):
  blocks = [{"type": "audio", "path": str(clip)}, {"type": "text", "text": "Well?"}]
  return Pair([{"role": "human", "content": blocks}], first, second)


def scripted(model, prompt, level):
  text = SAID.format(a="So,", level=level)
  ids = tuple(model.tokenizer.encode(text))
  think, answer = text.split("\n</think>\n")
  return Reply(prompt, 0, ids, (0.0,) * len(ids), text, think, answer, False)


@pytest.fixture(scope="module")
def heard(clips, tmp_path_factory):
  """What a judge of random weights says: the third time nothing, else level 2."""
  model, seen = worlds.model(), []

  def batch(params, model, asked, prompts, options):
    rollout = replies.laid(model, asked, prompts, options.batch_size)
    said = [
      scripted(model, one, "2" if len(seen) + k != 2 else "odd")
      for k, one in enumerate(asked)
    ]
    seen.extend((one, prompts, rollout) for one in said)
    return said

  patch = pytest.MonkeyPatch()
  patch.setattr(replies, "batch", batch)
  patch.setitem(judging.LOCAL, "batch_size", 2)
  cache = epath.Path(tmp_path_factory.mktemp("cache"))
  judge = judging.speaking(model, "random", cache)
  asked = [comparing.question(pair(clips[k])) for k in (0, 1, 0)]
  found = judge.weighed(asked)
  plain = judge.answers(asked)
  patch.undo()
  return model, seen, found, plain


def test_the_place_is_that_of_the_level_not_of_another_number(heard):
  model, seen, _, _ = heard
  reply = seen[0][0]
  spot = weighing.place(reply, model.tokenizer)
  before = model.tokenizer.decode(reply.token_ids[:spot])
  assert before == "So, 2 of 3 is kind.\n</think>\nSo:\nLevel: "
  assert model.tokenizer.decode(reply.token_ids[spot : spot + 1]) == "2"
  assert weighing.place(seen[2][0], model.tokenizer) is None


def whole(model):
  apply, known = StepAudio(model.size).apply, {"params": model.params}

  def logits(batch):
    x_BTD = apply(known, batch, method="hidden")
    return apply(known, x_BTD[0], method="logits")

  return jax.jit(logits)


def test_probabilities_are_those_of_a_whole_forward_pass(heard):
  """By another road: no branches, no cache; the softmax of all logits."""
  model, seen, found, _ = heard
  assert [answer.startswith("So:\nLevel") for answer, _ in found] == [True] * 3
  for reply, prompts, _ in seen[:2]:
    spot = weighing.place(reply, model.tokenizer)
    longer = reply.prompt.followed(reply.token_ids[:spot], "twin")
    length = len(longer.example.token_T)
    batch = replies.laid(model, [longer], prompts.as_long_as(length), 1)
    logit_TV = whole(model)(batch)
    wanted_6 = jax.nn.softmax(logit_TV[length - 1])[16:22]
    _, got_6 = found[int(reply.prompt.dialogue_id)]
    np.testing.assert_allclose(got_6, wanted_6, rtol=1e-4)


def test_a_judge_hears(heard):
  """Two questions that differ in the sound alone."""
  _, seen, found, _ = heard
  first, second = (found[int(seen[k][0].prompt.dialogue_id)][1] for k in (0, 1))
  texts = {tuple(seen[k][0].prompt.example.token_T.tolist()) for k in (0, 1)}
  assert len(texts) == 1
  assert np.abs(np.log(first / second)).max() > 3e-4  # rounding is far below


def test_what_names_no_level_has_no_probabilities(heard):
  _, seen, found, plain = heard
  odd = int(seen[2][0].prompt.dialogue_id)
  assert found[odd][1] is None
  assert [weight is None for _, weight in found].count(True) == 1
  assert len(plain) == 3


def test_a_checkpoint_compares_from_end_to_end(clips, tmp_path, monkeypatch):
  """Random weights close no thought: both orders are masked, and that is counted."""
  monkeypatch.setitem(judging.LOCAL, "batch_size", 2)
  monkeypatch.setitem(judging.LOCAL, "max_new_tokens", 4)
  judge = judging.speaking(worlds.model(), "random", epath.Path(tmp_path))
  comparer = Comparer(judge, expected=True)
  (found,) = comparer.both([pair(clips[0])])
  assert np.isnan(found.value)
  assert comparer.tally == comparing.Tally(asked=2, calls=2, unread=2)
