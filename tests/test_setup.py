"""What cannot be is told at set-up, in one line, before anything is computed."""

import json

import pytest
from etils import epath

from configs import dpo, reward_model, rlvr, sft
from stepaudio_jax import origins, train, train_rl
from stepaudio_jax.core import errors
from stepaudio_jax.data import loader, schema
from stepaudio_jax.data.corpus import Corpus
from stepaudio_jax.models import sizes
from stepaudio_jax.rollout import scorable
from stepaudio_jax.text import tokenizer as tokenizers
from tests import tones

RULES = {"audio": {"accuracy": 0.8, "think_format": 0.2}, "text": {}}


@pytest.fixture(autouse=True)
def little_model(monkeypatch):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  folder = tones.world(tmp_path_factory.mktemp("tones"))
  tones.policy(folder / "sft")
  tones.reward_model(folder / "rm", ("correctness", "naturalness"))
  return folder


@pytest.fixture
def nothing_is_encoded(monkeypatch):
  def encoded(*args):
    raise AssertionError("a clip was encoded")

  monkeypatch.setattr(loader, "_frames", encoded)


def verifiable(world, **changes):
  c = rlvr.get_config("algorithm=grpo,smoke")
  c.init = str(world / "sft")
  c.data.options.prompts.path = str(world / "prompts-{split}.jsonl")
  c.data.cache, c.data.max_tokens = str(world / "cache"), 64
  c.update_from_flattened_dict(changes)
  return c


def refused(run, c, folder):
  """What the command says, in one line."""
  with pytest.raises(SystemExit), errors.readable("it"):
    run(c, folder / "run")
  assert not (folder / "run" / "config.json").exists()


def one_line(text):
  assert text.startswith("it: ")
  assert text.count("\n") == 1
  return text


def test_prompts_without_an_answer_are_counted_and_named(
  world, tmp_path, capsys, nothing_is_encoded
):
  """Of six, two; those in text have no rule that needs one."""
  rows = [tones.talk("train", k) for k in range(6)]
  for k in (1, 4):
    del rows[k]["answer"], rows[k]["choices"]
  rows.append({"id": "told", "messages": [{"role": "human", "content": "Hello?"}]})
  tones.write(tmp_path / "prompts.jsonl", rows)
  for row in rows[:6]:  # beside their recordings
    (tmp_path / row["messages"][0]["content"][0]["path"]).symlink_to(
      world / row["messages"][0]["content"][0]["path"]
    )
  c = verifiable(world)
  c.rewards.rules = RULES
  c.data.options.prompts.path = str(tmp_path / "prompts.jsonl")
  refused(train_rl.run, c, tmp_path)
  wanted = "2 of 7 rows are of no use here: no 'answer', which the reward 'accuracy' "
  assert f"{wanted}needs (2, such as 'train-1', 'train-4')" in one_line(
    capsys.readouterr().err
  )


def test_a_rubric_that_nothing_can_be_earned_by_is_told_where_somebody_reads_it():
  row = {"id": "d1", "rubric": [{"text": "is rude", "weight": -1.0}]}
  dialogue = schema.Dialogue("d1", row, ())
  wanted = "the rubric of 'd1' has no weight above 0"
  assert scorable.unfit({}, rubric=True)(dialogue) == wanted
  assert scorable.unfit({})(dialogue) is None
  row["rubric"].append({"text": "asks back", "weight": 0.5})
  assert scorable.unfit({}, rubric=True)(dialogue) is None


def test_a_rule_speaks_of_its_stream_alone_and_says_what_it_cannot_score(tmp_path):
  heard, told = tones.talk("a", 0), tones.talk("b", 1)
  told["messages"][0]["content"] = "Pitch?"
  odd = {**told, "id": "c", "answer": "middle"}
  bare = {k: x for k, x in told.items() if k not in ("answer", "choices")}
  answered = {**bare, "id": "d"}
  unfit = scorable.unfit({"text": {"accuracy": 1.0}})
  of = lambda row, *clips: unfit(schema.Dialogue(row["id"], row, clips))  # noqa: E731
  clip = schema.Audio("0.wav", None, None, "a")
  assert of({k: x for k, x in heard.items() if k != "answer"}, clip) is None
  assert of(told) is None
  assert of(bare) == "no 'answer', which the reward 'accuracy' needs"
  assert "answer 'middle' is not among the choices ['low', 'high']" in of(odd)
  tones.write(tmp_path / "p.jsonl", [told, odd, bare | {"id": "e"}, answered])
  options = {"dialogue": {"path": str(tmp_path / "p.jsonl")}}
  with pytest.raises(
    ValueError, match=r"^3 of 4 rows .*'middle' .*; no 'answer'.*'e', 'd'"
  ):
    Corpus({"dialogue": 1.0}, options, "train", unfit=unfit)
  assert len(Corpus({"dialogue": 1.0}, options, "train")) == 4
  levels = scorable.unfit({"text": {"level_error": 1.0}})
  wrong = levels(schema.Dialogue("c", odd, ()))
  assert "answer 'middle' is not one of ('1', '2'" in wrong


def test_fewer_prompts_than_a_step_asks(world, tmp_path, capsys):
  refused(train_rl.run, verifiable(world, prompts_per_step=8), tmp_path)
  told = one_line(capsys.readouterr().err)
  assert "prompts_per_step=8 is more than the 6 prompts of data.split='train'" in told


@pytest.mark.parametrize("key", ["init", "reference"])
def test_a_reward_model_is_no_policy(world, tmp_path, capsys, nothing_is_encoded, key):
  rm = str(world / "rm")
  refused(train_rl.run, verifiable(world, **{key: rm}), tmp_path)
  wanted = f"{key}={rm!r} holds a reward model of ['correctness', 'naturalness']"
  assert wanted in one_line(capsys.readouterr().err)
  c = dpo.get_config("smoke")
  c.init, c[key] = str(world / "sft"), rm
  refused(train.run, c, tmp_path)
  assert wanted in one_line(capsys.readouterr().err)


def test_but_another_one_may_start_from_it(world):
  c = reward_model.get_config("smoke")
  c.init = str(world / "rm")
  assert train.start_size(c, tokenizers.load("tiny")) == tones.LITTLE


def test_a_start_of_another_size_tells_both(
  world, tmp_path, capsys, nothing_is_encoded
):
  wide, its = sizes.SIZES["small"].width, tones.LITTLE.width
  init = str(world / "sft")
  wanted = f"size='small', but init={init!r} is of size 'tiny': encoder_width 384 ≠ "
  supervised = sft.get_config("smoke")
  supervised.init, supervised.size = init, "small"
  for run, c in (
    (train_rl.run, verifiable(world, size="small")),
    (train.run, supervised),
  ):
    refused(run, c, tmp_path)
    told = one_line(capsys.readouterr().err)
    assert wanted in told
    assert f" width {wide} ≠ {its}, " in told
    assert "vocabulary" not in told  # that of both is 1,024
    assert told.endswith("; size='init' takes its own\n")


def test_a_part_that_begins_anew_may_be_of_another_size(world):
  """The shapes of the others are compared where they are read."""
  c = sft.get_config("smoke")
  c.init, c.size, c.fresh = str(world / "sft"), "small", ("adaptor", "decoder")
  assert train.start_size(c, tokenizers.load("tiny")).name == "small"
  assert origins.start_size("init", c.init) == tones.LITTLE
  assert json.loads((epath.Path(c.init) / "model.json").read_text())["name"] == "tiny"
