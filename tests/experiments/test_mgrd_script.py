"""experiments/mgrd.sh from a start that knows something, twice over."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from configs import sft
from experiments import mgrd
from stepaudio_jax import logs, train, workdirs
from stepaudio_jax.data.world import text_only
from stepaudio_jax.models import sizes, step_audio
from stepaudio_jax.text import tokenizer
from tests import tones
from tests.experiments.test_mgrd import ROOT, write

THOUGHTS = {"low": "A deep tone, so it is low.", "high": "A thin tone, so it is high."}


def world(folder):
  """Eight tones; what is held out is learned too, for a start that knows something."""
  folder.mkdir()
  tones.world(folder)
  rows = [tones.talk("train", i) for i in range(8)]
  for row in rows:
    row["messages"][-1]["think"] = THOUGHTS[row["answer"]]
  write(folder / "prompts-train.jsonl", rows)
  write(folder / "prompts-heldout.jsonl", rows)
  write(folder / "text-train.jsonl", text_only.rows(20, seed=0))
  return folder


def start(folder, data):
  """SFT by heart, from random weights."""
  params = step_audio.init_params(jax.random.key(0), sizes.size("tiny"))
  tones.saved(folder / "random", params)
  workdirs.describe(folder / "random", sizes.size("tiny"), tokenizer.load("tiny"))
  c = sft.get_config("")
  c.init, c.total_steps, c.batch_size = str(folder / "random"), 100, 8
  c.data.options.dialogue.path = str(data / "prompts-train.jsonl")
  c.data.pack, c.data.max_tokens, c.data.max_clips = False, 96, 1
  return train.run(c, folder / "sft")


@pytest.mark.slow
def test_two_iterations_of_the_script(tmp_path):
  data = world(tmp_path / "world")
  command = ["bash", str(ROOT / "experiments" / "mgrd.sh"), "smoke"]
  command += ["--start", str(start(tmp_path, data)), "--world", str(data)]
  command += ["--workdir", str(tmp_path / "run")]
  here = pathlib.Path(sys.executable).parent
  env = os.environ | {"COUNT": "6", "PATH": f"{here}:{os.environ['PATH']}"}

  def run():
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

  run()
  asked = set()
  for iteration in ("1", "2"):
    folder = tmp_path / "run" / iteration
    counts = json.loads((folder / "counts.json").read_text())
    evidence = (folder / "evidence.jsonl").read_text().splitlines()
    assert counts["replies"] == len(evidence) == 6 * 4
    assert counts["kept"] + sum(counts["dropped_first_for"].values()) == 24
    assert counts["kept"] == len((folder / "kept.jsonl").read_text().splitlines()) > 0
    row = logs.read_metrics(folder / "sft" / "metrics.jsonl")[-1]
    assert row["train/loss_kept"] > 0
    assert row["train/loss_written"] > 0
    assert workdirs.load_model(folder / "rlvr") is not None
    asked |= set(mgrd.read(folder / "questions.jsonl"))
  assert len(asked) == 8  # the second begins where the first ended
  before = (tmp_path / "run" / "2" / "rlvr" / "metrics.jsonl").read_bytes()
  assert run().count("done before") == 12
  assert (tmp_path / "run" / "2" / "rlvr" / "metrics.jsonl").read_bytes() == before
  env["COUNT"] = "5"
  done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
  assert done.returncode == 2
  assert "was begun with other settings" in done.stderr
