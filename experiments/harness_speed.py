r"""What the harness itself costs an item: a benchmark of evaluate without its model.

  python -m experiments.harness_speed --items 5000

Asks made-up MMAU questions about clips of half a second. The encoder gives zeros and
the sampler one sentence, so all time beyond them, audio decoding and log-mels is the
harness's: reading and checking the files, prompts, batches, the journal, scores,
sums, result files. Prints milliseconds an item.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np
import soundfile
from etils import epath

from stepaudio_jax import evaluate, sampling, workdirs
from stepaudio_jax.core import lengths
from stepaudio_jax.core.types import Rollout
from stepaudio_jax.data import features
from stepaudio_jax.evals.parts import hearing, suite
from stepaudio_jax.evals.parts.speaker import Speaker
from stepaudio_jax.models import sizes, step_audio
from stepaudio_jax.text import tokenizer as tokenizers

_SAMPLES, _CHOICES = 8_000, ["a dog", "a bell", "rain", "a train"]
_SAID = "It barks.\n</think>\nA"

Spent = collections.Counter


def run(items: int, folder: pathlib.Path) -> dict[str, float]:
  """Milliseconds an item, by what they went into."""
  write(items, folder / "data")
  module = evaluate.load_benchmark("mmau")
  speaker = Speaker(_model(), epath.Path(folder / "cache"))
  options = suite.Options(**module.DEFAULTS | {"max_new_tokens": 64})
  spent: Spent = collections.Counter()
  with _stubs(speaker, spent):
    start = time.perf_counter()
    summary, rows = suite.evaluate(
      module,
      speaker,
      epath.Path(folder / "data"),
      out=epath.Path(folder / "out"),
      options=options,
    )
    total_s = time.perf_counter() - start
  if summary["n"] != items or len(rows) != items or summary["n_failed"]:
    raise RuntimeError(f"{summary['n']} of {items} items, {summary['n_failed']} failed")
  told = {name: 1e3 * seconds / items for name, seconds in spent.items()}
  return {**told, "harness": 1e3 * total_s / items - sum(told.values())}


def write(items: int, folder: pathlib.Path) -> None:
  """MMAU's files with so many questions, each about noise of its own."""
  audio = folder / "test-mini-audios"
  audio.mkdir(parents=True)
  generator = np.random.default_rng(0)
  rows = []
  for n in range(items):
    noise_N = 0.1 * generator.standard_normal(_SAMPLES)
    soundfile.write(audio / f"{n}.wav", noise_N, lengths.SAMPLE_RATE)
    rows.append(
      {
        "id": f"item-{n}",
        "audio_id": f"./test-mini-audios/{n}.wav",
        "question": f"What is heard in recording {n}?",
        "choices": _CHOICES,
        "answer": _CHOICES[n % len(_CHOICES)],
        "task": ("sound", "music", "speech")[n % 3],
        "sub-category": f"kind {n % 27}",
        "difficulty": ("easy", "medium", "hard")[n % 3],
      }
    )
  (folder / "mmau-test-mini.json").write_text(json.dumps(rows))


def _model() -> workdirs.Model:
  size = sizes.size("tiny")
  params = step_audio.init_params(jax.random.key(0), size)
  return workdirs.Model(jax.device_get(params), size, tokenizers.load("tiny"))


@contextlib.contextmanager
def _stubs(speaker: Speaker, spent: Spent) -> Iterator[None]:
  """No model; decoding and log-mels are timed."""
  tokenizer, size = speaker.model.tokenizer, speaker.model.size
  said = [*tokenizer.encode(_SAID), tokenizer.special.eot]

  def encode(mel_BLM: np.ndarray, sample_count_B: np.ndarray) -> tuple:
    count_B = np.asarray([lengths.encoder_frames(int(n)) for n in sample_count_B])
    shape = (len(mel_BLM), max(count_B), size.encoder_width)
    return np.zeros(shape, np.float32), count_B

  def sample(params: Any, batch: Any, rng: Any, *, copies: int, **_: Any) -> Rollout:
    token_BT = np.tile(np.asarray(said, np.int32), (len(batch.token_BT) * copies, 1))
    logprob_BT = np.full(token_BT.shape, -0.1, np.float32)
    mask_BT = np.ones(token_BT.shape, bool)
    count_B = mask_BT.sum(axis=1)
    return Rollout(token_BT, logprob_BT, mask_BT, count_B, count_B < 0)

  timed_encode = _timed(encode, "model", spent)
  with (
    mock.patch.object(hearing, "replicas", return_value=timed_encode),
    mock.patch.object(sampling, "sample", _timed(sample, "model", spent)),
    mock.patch.object(features, "mels", _timed(features.mels, "decode + mel", spent)),
  ):
    yield


def _timed(function: Callable, name: str, spent: Spent) -> Callable:
  def timed(*args: Any, **options: Any) -> Any:
    start = time.perf_counter()
    out = function(*args, **options)
    spent[name] += time.perf_counter() - start
    return out

  return timed


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.harness_speed",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("--items", type=int, default=5000)
  items = parser.parse_args(argv).items
  with tempfile.TemporaryDirectory() as folder:
    spent = run(items, pathlib.Path(folder))
  for name, milliseconds in spent.items():
    print(f"{name:>14}: {milliseconds:.3f} ms an item")


if __name__ == "__main__":
  main()
