"""Who judges: the choice as text, wording by its hash, a model in this process."""

import hashlib

import pytest

from stepaudio_jax.judges import choice, local
from stepaudio_jax.judges.choice import Choice
from stepaudio_jax.judges.questions import Question, Template
from stepaudio_jax.text import messages


def test_the_three_kinds_of_judges(tmp_path):
  assert choice.choice("rule") == Choice("rule")
  assert choice.choice(str(tmp_path)) == Choice("local", str(tmp_path))
  wanted = Choice("endpoint", "https://host:8000/v1", "Qwen/Qwen3-32B")
  assert choice.choice("https://host:8000/v1/#Qwen/Qwen3-32B") == wanted


@pytest.mark.parametrize(
  "text", ["", "rules", "no/such/folder", "http://host/v1", "http:///v1#m", "ftp://h#m"]
)
def test_anything_else_is_told_the_choices(text):
  with pytest.raises(ValueError, match="OpenAI-compatible"):
    choice.choice(text)


@pytest.mark.parametrize(
  "text", ["http://me:pass@host/v1#m", "https://host/v1?key=pass#m"]
)
def test_secrets_in_an_address_are_refused_and_not_repeated(text):
  with pytest.raises(ValueError, match="environment variable") as error:
    choice.choice(text)
  assert "pass@" not in str(error.value)
  assert "key=" not in str(error.value)


def test_a_templates_hash_is_of_its_wording_alone():
  template = Template("Is {answer} right?", system="Judge.")
  wanted = hashlib.sha256(b"Judge.\0Is {answer} right?").hexdigest()[:12]
  assert template.hash == wanted
  asked = template.ask(answer="{braces} and }")
  assert asked == Question("Judge.", "Is {braces} and } right?", wanted)


def test_a_local_judge_says_one_thing_to_each_question():
  seen = []

  def say(dialogues):
    seen.extend(dialogues)
    return [None, *(f"said {k}" for k in range(1, len(dialogues)))]

  judge = local.LocalJudge(say, {"checkpoint": "runs/judge", "step": 3})
  asked = [Question("Judge.", "One?", "h"), Question("", "Two?", "h")]
  assert judge.answers(asked) == [None, "said 1"]
  assert judge.describe() == {"kind": "local", "checkpoint": "runs/judge", "step": 3}
  assert [[(m["role"], messages.text_of(m)) for m in talk] for talk in seen] == [
    [("system", "Judge."), ("human", "One?")],
    [("human", "Two?")],
  ]
  assert seen == [messages.normalise(talk, "x") for talk in seen]
  assert judge.answers([]) == []


def test_a_local_judge_that_loses_a_reply_is_an_error():
  judge = local.LocalJudge(lambda dialogues: ["one"], {})
  with pytest.raises(ValueError, match="1 replies to 2"):
    judge.answers([Question("", "One?", "h"), Question("", "Two?", "h")])
