"""What the benchmarks with a judge have in common."""

import importlib
import json

import pytest
from etils import epath

from stepaudio_jax.evals import (
  audio_mc,
  big_bench_audio,
  step_caption,
  step_du,
  step_spqa,
)
from stepaudio_jax.evals.parts import judging
from stepaudio_jax.judges import choice, endpoint
from tests.evals import rows as rows_lib
from tests.evals import worlds
from tests.judges import servers

NAMES = ("audio_mc", "step_caption", "step_du", "step_spqa")

# Results name a wording by its hash. Whoever changes one changes what is measured: a
# new hash here says that this is meant.
WORDINGS = {
  "audio_mc": (audio_mc.JUDGE, "edd4e5253f14"),
  "step_caption": (step_caption.JUDGE, "1dc6655acebc"),
  "step_caption, the model's": (step_caption.PROMPT, "601228535458"),
  "step_du": (step_du.JUDGE, "32e29d4b93ae"),
  "big_bench_audio": (big_bench_audio.JUDGE, "e734fd4f5182"),
  "big_bench_audio, the model's": (big_bench_audio.PROMPT, "bcbbd188c0bf"),
}


@pytest.mark.parametrize("name", [*WORDINGS])
def test_wordings_stay_as_they_are(name):
  template, wanted = WORDINGS[name]
  assert template.hash == wanted


def test_wordings_of_step_spqa_stay_as_they_are():
  found = {task: template.hash for task, template in step_spqa.TEMPLATES.items()}
  assert found == {
    "age": "822f5f72b26c",
    "emotions": "2d3629f2f3d4",
    "event": "cb6f348bcf2a",
    "gender": "c604e900de38",
    "pitch": "001ab472a91f",
    "rhythm": "6ab9b0b3de8d",
    "scene": "eaa64220231f",
    "speed": "ae5e92e9d2c0",
    "vocalsound": "78fc17bad38d",
    "voice_styles": "2c947245b542",
    "voice_tone": "b6104b0cae10",
  }


@pytest.mark.parametrize("name", NAMES)
def test_what_a_folder_must_hold(name, tmp_path):
  module = importlib.import_module(f"stepaudio_jax.evals.{name}")
  assert module.JUDGES == ("judge",)
  assert set(module.DEFAULTS) == {"temperature", "max_new_tokens", "batch_size"}
  assert module.DEFAULTS["temperature"] == 0.7
  with pytest.raises(ValueError, match=r"metadata\.jsonl.*parquet"):
    module.read(tmp_path)
  (tmp_path / "metadata.jsonl").write_text("\n")
  with pytest.raises(ValueError, match="is empty"):
    module.read(tmp_path)


def test_a_small_checkpoint_can_judge(tmp_path, monkeypatch):
  monkeypatch.setitem(judging.LOCAL, "batch_size", 1)
  run = worlds.write_checkpoint(tmp_path / "run")
  found = judging.judges(
    {"step_du": step_du}, str(run), None, epath.Path(tmp_path / "cache")
  )
  judge = found["step_du"]
  said = judge.describe()
  assert (said["kind"], said["step"]) == ("local", worlds.STEP)
  # Half of its 512 positions are the question's.
  assert said["max_new_tokens"] == 256
  assert said["seal"]
  # Random weights close no thought: no verdict, and no error.
  assert judge.answers([step_du.JUDGE.ask(**ASKED)]) == [None]


ASKED = dict.fromkeys(("dimension", "question", "points", "answer"), "?")


def test_from_a_folder_over_an_endpoint_to_scores(tmp_path, monkeypatch):
  servers.without_proxies(monkeypatch)
  rows = [
    {
      "id": f"speed:{k}",
      "audio_path": f"audio/speed/{k}.wav",
      "task_type": "speed",
      "label": label,
      "reference_answer": f"语速是{label}。",
      "audio_only_input": True,
    }
    for k, label in enumerate(["快速", "中速", "慢速", "中速"])
  ]
  items = step_spqa.read(
    rows_lib.folder(tmp_path, rows, [r["audio_path"] for r in rows])
  )
  answers = ["比较快", "中速。", "很快", "说不好"]
  asked = [step_spqa.questions(*pair) for pair in zip(items, answers, strict=True)]
  assert [len(one) for one in asked] == [1, 0, 1, 1]

  def reply(_, body):
    text = body["messages"][-1]["content"]
    said = {"比较快": "<think>NO?</think>YES", "很快": "**NO**", "说不好": "UNSURE"}
    return servers.completion(next(v for k, v in said.items() if k in text))

  with servers.serving(reply) as server:
    place = choice.choice(f"{server.url}#judge")
    judge = endpoint.Endpoint(place.place, place.model)
    raw = iter(judge.answers([question for one in asked for question in one]))
  verdicts = [[next(raw) for _ in one] for one in asked]
  scores = map(step_spqa.score, items, answers, verdicts)
  assert [score.value for score in scores] == [1.0, 1.0, 0.0, None]
  assert {body["model"] for _, _, body in server.requests} == {"judge"}
  assert json.dumps(judge.describe())
