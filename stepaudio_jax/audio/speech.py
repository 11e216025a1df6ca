"""Synthetic speech as a build step: a plan of clips in, shards of FLAC files out.

espeak-ng's output depends on everything the process said before, so a shard is
spoken by a fresh child process in the plan's order (`python -m` this file), beside
its final name, and renamed when whole. The same plan gives the same bytes, killed
and restarted or not, with the same packages (plan.json records them) and kind of
machine. A clip of 6.5 s takes about 25 ms of one core.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

import numpy as np
import soundfile
import soxr
import tqdm

from stepaudio_jax.audio import effects, espeak

SAMPLE_RATE = 16_000  # Hz
_GAIN = 0.5  # of every clip: room for noise and reverberation, loudness comparable
_TRIM = 0.002  # of an utterance's peak; less at its ends is espeak's pause
_VERSION = 1  # of the steps from plan to file; a change makes every old plan another
_PARTIAL = ".partial"
_PACKAGES = ("espeakng-loader", "soxr", "soundfile", "numpy")
_RANGES = {
  "pitch": (0, 99),
  "rate": (80, 450),
  "volume": (5, 200),  # below 5 espeak's integers swallow the speech
  "pitch_range": (0, 99),
}


@dataclasses.dataclass(frozen=True)
class Utterance:
  """One voice saying one text. The numbers below were measured (pyin, RMS).

  Attributes:
    voice: espeak language with an optional variant, such as "en-us+f3".
    pitch: 0 to 99. F0 is the voice's own at 50, ×0.7 at 0, ×1.65 at 99 (median
      102 Hz for "en-us", 210 Hz for "en-us+f3" at 50).
    rate: words a minute, 80 to 450; the duration goes as 1/rate.
    volume: percent of espeak's amplitude, 5 to 200; RMS is proportional up to 150,
      and 200 gives ×1.9, because espeak's gain control holds the peaks.
    pitch_range: 0 (F0 within 1 %) to 99; the middle 80 % of F0 span 2, 33 and 65 Hz
      at 0, 50 and 99 ("en-us"), and the median rises by a quarter from 0 to 99.
  """

  text: str
  voice: str
  pitch: int
  rate: int
  volume: int
  pitch_range: int


@dataclasses.dataclass(frozen=True)
class Clip:
  """One recording of round(duration_s · 16,000) samples.

  Attributes:
    gap_s: silence between utterances.
    duration_s: of the whole clip; silence before the speech is drawn from the seed.
    noise_snr_db: power of the speech (in the room, while spoken) to that of the
      noise (white or pink, by the seed), or None.
    reverb_s: RT60 of the room, or None.
    seed: of everything but the voices.
  """

  id: str
  utterances: tuple[Utterance, ...]
  gap_s: float
  duration_s: float
  noise_snr_db: float | None
  reverb_s: float | None
  seed: int


def check(clips: Sequence[Clip]) -> None:
  """Raises ValueError that names the first clip that cannot be spoken, and why."""
  seen = set()
  for clip in clips:
    try:
      _check_clip(clip)
      if clip.id in seen:
        raise ValueError("the id was used before")
    except ValueError as error:
      raise ValueError(f"clip {clip.id!r}: {error}") from error
    seen.add(clip.id)


def _check_clip(clip: Clip) -> None:
  if not clip.id or clip.id.startswith(".") or set(clip.id) & set('/\\:*?"<>|\0'):
    raise ValueError("the id must serve as a file name")
  if not clip.utterances:
    raise ValueError("no utterances")
  for name, low in (("gap_s", 0), ("duration_s", 0), ("seed", 0)):
    if not getattr(clip, name) >= low or math.isinf(getattr(clip, name)):
      raise ValueError(f"{name}={getattr(clip, name)} is not in [{low}, inf)")
  if clip.noise_snr_db is not None and not math.isfinite(clip.noise_snr_db):
    raise ValueError(f"noise_snr_db={clip.noise_snr_db} is not finite")
  if clip.reverb_s is not None and not 0 < clip.reverb_s <= 10:
    raise ValueError(f"reverb_s={clip.reverb_s} is not in (0, 10]")
  for utterance in clip.utterances:
    if not utterance.text.strip() or "\0" in utterance.text:
      raise ValueError(f"text {utterance.text!r} has nothing to say")
    espeak.check_voice(utterance.voice)
    for name, (low, high) in _RANGES.items():
      value = getattr(utterance, name)
      if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name}={value!r} is not an integer in [{low}, {high}]")


def speak(clip: Clip, voice: espeak.Espeak) -> np.ndarray:
  """float64 samples at 16 kHz in [−1, 1]; repeatable only within a shard."""
  rng = np.random.default_rng(clip.seed)
  spoken = [_say(utterance, voice) for utterance in clip.utterances]
  gap = np.zeros(round(clip.gap_s * SAMPLE_RATE))
  dry = np.concatenate([part for one in spoken for part in (gap, one)][1:])
  count = round(clip.duration_s * SAMPLE_RATE)
  if dry.size > count:
    raise ValueError(
      f"the speech takes {dry.size / SAMPLE_RATE:.2f} s, "
      f"more than duration_s={clip.duration_s}"
    )
  start = rng.integers(count - dry.size + 1)
  out = np.zeros(count)
  wet = dry
  if clip.reverb_s is not None:
    wet = effects.convolve(dry, effects.room(clip.reverb_s, SAMPLE_RATE, rng))
    wet = wet[: count - start]  # the tail ends with the clip
  out[start : start + wet.size] = wet
  if clip.noise_snr_db is not None:
    colour = ("white", "pink")[rng.integers(2)]
    level = np.sqrt(np.sum(wet**2) / sum(one.size for one in spoken))
    level *= 10 ** (-clip.noise_snr_db / 20)
    out += level * effects.noise(count, colour, SAMPLE_RATE, rng)
  return np.clip(out, -1.0, 1.0)


def _say(utterance: Utterance, voice: espeak.Espeak) -> np.ndarray:
  settings = {name: getattr(utterance, name) for name in _RANGES}
  pcm = voice.say(utterance.text, utterance.voice, **settings)
  loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > _TRIM * _peak(pcm))
  if not loud.size:
    raise ValueError(f"{utterance.text!r} gave no sound")
  x_N = pcm[loud[0] : loud[-1] + 1] * (_GAIN / 32768)
  return soxr.resample(x_N, espeak.SAMPLE_RATE, SAMPLE_RATE, quality="HQ")


def _peak(pcm: np.ndarray) -> int:
  return int(np.max(np.abs(pcm.astype(np.int32)), initial=0))


def speak_shards(
  clips: Sequence[Clip],
  folder: str | os.PathLike,
  *,
  shard_size: int,
  processes: int = 2,
  progress: bool = False,
) -> None:
  """Writes folder/<shard:05d>/<clip id>.flac, index.jsonl and plan.json.

  A whole shard of the same plan is kept, what a killed run left half is made again.
  A shard of another plan is an error, never remade: its files may be in use, and
  the wrong folder must not cost a data set. Other package versions alone do not make
  another plan. One run at a time in a folder.

  Args:
    clips: spoken in this order; a shard's bytes depend on all its clips.
    shard_size: clips a shard, at least 1.
    processes: children at a time.
    progress: show a bar of clips.

  Raises:
    ValueError: a clip cannot be spoken (named), or the folder holds another plan.
    RuntimeError: a child failed; holds its error output, nothing is left half.
  """
  if shard_size < 1 or processes < 1:
    raise ValueError(f"{shard_size=} and {processes=} must be at least 1")
  check(clips)
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for left in folder.glob(f"[0-9]*{_PARTIAL}"):
    # Renamed first: the next file of a child that is still dying then fails.
    shutil.rmtree(left.rename(left.with_name(left.name + _PARTIAL)))
  plans = {
    folder / f"{shard:05d}": _plan(clips[first : first + shard_size])
    for shard, first in enumerate(range(0, len(clips), shard_size))
  }
  waiting = {path: plan for path, plan in plans.items() if not _kept(path, plan)}
  strangers = set(folder.glob("[0-9]" * 5)) - set(plans)
  if strangers:
    names = ", ".join(sorted(path.name for path in strangers))
    raise ValueError(f"{folder} holds shards beyond this plan's: {names}")
  done = len(clips) - sum(len(plan["clips"]) for plan in waiting.values())
  with tqdm.tqdm(
    total=len(clips), initial=done, unit="clip", desc="speech", disable=not progress
  ) as bar:
    _run(waiting, processes, bar)


def _plan(clips: Sequence[Clip]) -> dict:
  plan = {"version": _VERSION, "clips": [dataclasses.asdict(clip) for clip in clips]}
  text = json.dumps(plan, sort_keys=True)
  return {
    "sha256": hashlib.sha256(text.encode()).hexdigest(),
    "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    **plan,
  }


def _kept(path: pathlib.Path, plan: dict) -> bool:
  """Whether the shard is there and whole; ValueError where it is another plan's."""
  if not path.exists():
    return False
  if not (path / "plan.json").exists():
    raise ValueError(f"{path} is no shard: it holds no plan.json")
  if json.loads((path / "plan.json").read_text())["sha256"] != plan["sha256"]:
    raise ValueError(
      f"{path} was spoken from another plan; remove it or name another folder"
    )
  return True


def _run(waiting: dict[pathlib.Path, dict], processes: int, bar: tqdm.tqdm) -> None:
  running: dict[pathlib.Path, subprocess.Popen] = {}
  queue = list(waiting)
  with tempfile.TemporaryDirectory() as errors:
    try:
      while queue or running:
        while queue and len(running) < processes:
          path = queue.pop(0)
          running[path] = _start(path, waiting[path], pathlib.Path(errors))
        for path in [
          path for path, child in running.items() if child.poll() is not None
        ]:
          child = running.pop(path)
          child.stdin.close()
          _finish(path, child, pathlib.Path(errors))
          bar.update(len(waiting[path]["clips"]))
        time.sleep(0.02)
    finally:
      for path, child in running.items():
        child.kill()
        child.wait()
        child.stdin.close()
        shutil.rmtree(_aside(path))


def _aside(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f"{path.name}.{os.getpid()}{_PARTIAL}")


def _start(path: pathlib.Path, plan: dict, errors: pathlib.Path) -> subprocess.Popen:
  aside = _aside(path)
  aside.mkdir()
  (aside / "plan.json").write_text(json.dumps(plan, indent=1))
  root = str(pathlib.Path(__file__).parents[2])
  inherited = os.environ.get("PYTHONPATH")
  environment = dict(os.environ)
  environment["PYTHONPATH"] = f"{root}{os.pathsep}{inherited}" if inherited else root
  with open(errors / path.name, "wb") as stderr:
    return subprocess.Popen(
      [sys.executable, "-m", "stepaudio_jax.audio.speech", str(aside)],
      stdin=subprocess.PIPE,  # nothing is written; it ends when this process does
      stdout=subprocess.DEVNULL,
      stderr=stderr,
      env=environment,
    )


def _finish(path: pathlib.Path, child: subprocess.Popen, errors: pathlib.Path) -> None:
  # The parent renames, so a child that outlives its parent can publish nothing.
  if child.returncode:
    shutil.rmtree(_aside(path))
    said = (errors / path.name).read_text(errors="replace").strip()
    raise RuntimeError(
      f"shard {path} was not spoken (exit status {child.returncode}):\n{said}"
    )
  _aside(path).rename(path)


def _speak_shard(folder: pathlib.Path) -> None:
  """The child's work: speaks folder/plan.json into folder."""
  voice = espeak.Espeak()
  with open(folder / "index.jsonl", "w") as index:
    for raw in json.loads((folder / "plan.json").read_text())["clips"]:
      utterances = tuple(Utterance(**one) for one in raw.pop("utterances"))
      clip = Clip(**raw, utterances=utterances)
      try:
        x_N = speak(clip, voice)
      except ValueError as error:
        sys.exit(f"clip {clip.id!r}: {error}")
      name = f"{clip.id}.flac"
      pcm = np.round(x_N * 32767).astype(np.int16)
      soundfile.write(folder / name, pcm, SAMPLE_RATE, subtype="PCM_16")
      digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
      row = {"id": clip.id, "path": name, "samples": pcm.size, "sha256": digest}
      index.write(json.dumps(row) + "\n")


def _end_with_parent() -> None:
  """Ends this process when standard input closes: the parent is gone."""

  def wait():
    while os.read(0, 1):
      pass
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
  _end_with_parent()
  _speak_shard(pathlib.Path(sys.argv[1]))
