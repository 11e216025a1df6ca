r"""How fast import and export are beside a plain copy, and how much memory they take.

  python -m experiments.convert_speed --workdir /tmp/speed

Makes a synthetic checkpoint of at least 3 GB in 4 shards, and times `cp` and `sync` of
its files, `convert import` and `convert export`, each with its source evicted from the
page cache, each until everything is on the disk, Python's start included. Needs 10 GB
of disk; the folders are removed. The bounds that it judges by: 0.4 of the copy's speed,
and memory of the model's bytes + one shard + 1 GB.
"""

import argparse
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from stepaudio_jax.hf import export, files, folder, safe, table
from stepaudio_jax.models import sizes
from stepaudio_jax.text import tokenizer

# The 7B's vocabulary, and widths that give 3 GB with many layers to stack.
SIZE = dataclasses.replace(
  sizes.size("step_audio_2_mini"),
  name="synthetic",
  width=2048,
  ffn_width=11008,
  heads=16,
  layers=10,
  encoder_layers=8,
)
SHARDS = 4
LEAST_SPEED = 0.4


def synthetic(to: Path) -> int:
  """Writes bfloat16 tensors of random bits, all finite; returns their bytes."""
  to.mkdir()
  words = tokenizer.load("tiny")
  words.save(to)
  config = files.config(SIZE, words.special, "bfloat16")
  (to / "config.json").write_text(json.dumps(config))
  shapes = table.their_shapes(SIZE)
  nbytes = {key: 2 * math.prod(shape) for key, shape in shapes.items()}
  total = sum(nbytes.values())
  packed = export.shards(nbytes, cap=round(total / SHARDS * 1.1))
  where, rng = export.weight_map(packed), np.random.default_rng(0)
  for keys in packed:
    tensors = {key: (safe.DTYPES["BF16"], shapes[key]) for key in keys}
    head, _, _ = safe.layout(tensors)
    with (to / where[keys[0]]).open("wb") as file:
      file.write(head)
      for key in keys:
        bits = np.frombuffer(rng.bytes(nbytes[key]), np.uint16)
        file.write((bits & np.uint16(0xBFFF)).tobytes())  # no exponent is all ones
  index = {"metadata": {"total_size": total}, "weight_map": where}
  (to / folder.INDEX).write_text(json.dumps(index))
  return total


def evict(source: Path) -> None:
  """Drops the files of a folder from the page cache."""
  os.sync()
  for path in source.rglob("*"):
    if path.is_file():
      descriptor = os.open(path, os.O_RDONLY)
      os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
      os.close(descriptor)


def timed(source: Path, *command: str) -> tuple[float, int]:
  """(seconds until it is on disk, peak bytes of memory) of a process."""
  evict(source)
  clock = time.perf_counter()
  child = subprocess.Popen(command)
  _, status, usage = os.wait4(child.pid, 0)
  child.returncode = os.waitstatus_to_exitcode(status)
  os.sync()
  if child.returncode:
    raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}")
  return time.perf_counter() - clock, usage.ru_maxrss * 1024


def run(workdir: Path) -> dict[str, float]:
  """Times all three and prints a table."""
  workdir.mkdir(parents=True)
  there, ours, back = (workdir / name for name in ("there", "ours", "back"))
  convert = (sys.executable, "-m", "stepaudio_jax.convert")
  try:
    total = synthetic(there)
    shard = max(path.stat().st_size for path in there.glob("*.safetensors"))
    bound = total + shard + 10**9
    copied, _ = timed(there, "cp", "-r", str(there), str(workdir / "copy"))
    shutil.rmtree(workdir / "copy")
    rows = {
      "import": timed(
        there, *convert, "import", "--from", str(there), "--to", str(ours)
      ),
      "export": timed(ours, *convert, "export", "--from", str(ours), "--to", str(back)),
    }
  finally:
    shutil.rmtree(workdir)
  print(f"{total / 1e9:.2f} GB in {SHARDS} shards; memory may be {bound / 1e9:.2f} GB")
  print(f"copy    {copied:6.1f} s")
  result = {"bytes": total, "copy_s": copied, "memory_bound": bound}
  for name, (seconds, peak) in rows.items():
    speed = copied / seconds
    print(f"{name}  {seconds:6.1f} s  {speed:.2f} of its speed  {peak / 1e9:.2f} GB")
    result |= {f"{name}_s": seconds, f"{name}_speed": speed, f"{name}_peak": peak}
  good = all(
    copied / seconds >= LEAST_SPEED and peak <= bound for seconds, peak in rows.values()
  )
  print("within the bounds" if good else "OUT OF BOUNDS")
  return result | {"within": good}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", type=Path, required=True, help="new; it is removed")
  args = parser.parse_args()
  if not run(args.workdir)["within"]:
    raise SystemExit(1)


if __name__ == "__main__":
  main()
