"""Mixed lengths and modalities, packed: one program an epoch, and little padding."""

import jax
import numpy as np
import pytest
import soundfile

from configs import sft
from stepaudio_jax import logs, train
from stepaudio_jax.models import sizes
from tests import tones

COMPILED = "/jax/core/compile/backend_compile_duration"


def mixed_talk(k: int, rng: np.random.Generator) -> dict:
  """One to three turns, with and without sound, of very different lengths."""
  messages = []
  for _ in range(1 + k % 3):
    asked = [{"type": "text", "text": "low " * int(rng.integers(1, 12)) + "?"}]
    if k % 4:
      asked.insert(0, {"type": "audio", "path": f"{k % 4}.wav"})
    reply = "It is low. " * int(rng.integers(1, 10))
    messages += [{"role": "human", "content": asked}]
    messages += [{"role": "assistant", "think": "I hear it.", "content": reply}]
  return {"id": f"talk-{k}", "messages": messages}


@pytest.fixture
def compiled():
  """Times at which XLA compiled something."""
  found = []

  def heard(event, duration, **_):
    if event == COMPILED:
      found.append(duration)

  jax.monitoring.register_event_duration_secs_listener(heard)
  yield found
  jax.monitoring.unregister_event_duration_listener(heard)


def test_an_epoch_of_all_lengths_compiles_nothing_after_its_first_step(
  tmp_path, monkeypatch, compiled
):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
  rng = np.random.default_rng(0)
  for k in range(1, 4):
    length = int(16_000 * rng.uniform(0.2, 1.0))
    soundfile.write(tmp_path / f"{k}.wav", rng.normal(size=length) * 0.1, 16_000)
  tones.write(tmp_path / "talks.jsonl", [mixed_talk(k, rng) for k in range(48)])
  tones.policy(tmp_path / "start")
  c = sft.get_config("smoke")
  c.init, c.batch_size = str(tmp_path / "start"), 4
  c.data.options.dialogue.path = str(tmp_path / "talks.jsonl")
  c.data.max_tokens, c.data.max_clips, c.data.max_clip_s = 384, 6, 1.0
  c.total_steps, c.checkpoint.every_steps = 12, 100
  after = []
  write = logs.Metrics.write

  def noted(self, step, values):
    after.append(len(compiled))
    return write(self, step, values)

  monkeypatch.setattr(logs.Metrics, "write", noted)
  folder = train.run(c, tmp_path / "run")
  rows = logs.read_metrics(folder / "metrics.jsonl")
  padding = float(np.mean([row["data/padding"] for row in rows]))
  print(f"programs after step 1: {after[-1] - after[0]}; padding {padding:.1%}")
  assert after[0] > 0
  assert after[-1] == after[0]
  assert 0 < padding <= 0.3
