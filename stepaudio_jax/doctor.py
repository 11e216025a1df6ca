"""`python -m stepaudio_jax.doctor`: what is installed, which devices, what to fix."""

import argparse
import os
import platform
import re
import shutil
import sys
from importlib import metadata

from stepaudio_jax.core import errors

_SEEN_TO_WORK = {
  "jax": "0.10.2",
  "flax": "0.12.8",
  "optax": "0.2.8",
  "orbax-checkpoint": "0.12.8",
  "grain": "0.2.18",
}
_NEEDED_GIB = 6
_INSTALL = "pip install -e ."


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", default=".", help="its free disk space is reported")
  workdir = parser.parse_args().workdir
  with errors.readable("doctor"):
    problems = [*_packages(), *_devices(), *_speech(), *_machine(workdir)]
  for problem in problems:
    print(f"FIX   {problem}")
  print("all is well" if not problems else f"{len(problems)} things to fix")
  sys.exit(1 if problems else 0)


def _packages() -> list[str]:
  """Prints each requirement with its version; a missing one is a problem."""
  from packaging.requirements import Requirement

  problems = []
  try:
    wanted = metadata.requires("stepaudio_jax") or []
  except metadata.PackageNotFoundError:
    return [f"stepaudio_jax itself is not installed: {_INSTALL}"]
  for text in wanted:
    requirement = Requirement(text)
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
      continue
    try:
      version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
      problems.append(f"{requirement} is missing: {_INSTALL}")
      continue
    tested = _SEEN_TO_WORK.get(requirement.name)
    note = f" (tests ran with {tested})" if tested and tested != version else ""
    print(f"ok    {requirement.name} {version}{note}")
    if not requirement.specifier.contains(version, prereleases=True):
      problems.append(
        f"{requirement.name} {version} is outside {requirement.specifier}: {_INSTALL}"
      )
  return problems


def _devices() -> list[str]:
  """Runs one small product on every device, so that a broken driver shows here."""
  import jax
  import jax.numpy as jnp

  problems = []
  try:
    devices = jax.devices()
  except RuntimeError as error:
    return [f"jax finds no device: {error}"]
  for device in devices:
    product = jax.device_put(jnp.ones((8, 8)), device) @ jnp.ones((8, 8))
    if float(product[0, 0]) != 8.0:
      problems.append(f"{device} computes a wrong product: {product[0, 0]}")
    else:
      print(f"ok    device {device} ({device.device_kind})")
  accelerator = shutil.which("nvidia-smi") or os.path.exists("/dev/accel0")
  if accelerator and jax.default_backend() == "cpu":
    problems.append(
      "an accelerator is there but jax runs on the CPU: "
      'pip install -e ".[cuda]" or pip install -e ".[tpu]"'
    )
  return problems


def _speech() -> list[str]:
  """Loads the speech synthesiser's library and data."""
  try:
    import espeakng_loader

    library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
  except (ImportError, OSError, RuntimeError) as error:
    return [f"espeakng-loader does not load: {error}"]
  missing = [str(path) for path in (library, data) if not os.path.exists(path)]
  if missing:
    return [f"espeakng-loader lacks {missing}: reinstall it"]
  print(f"ok    speech synthesis ({os.path.basename(str(library))})")
  return []


def _machine(workdir: str) -> list[str]:
  print(f"ok    Python {platform.python_version()} on {platform.platform()}")
  print(f"ok    {os.cpu_count()} cores")
  problems = []
  folder = _existing(workdir)
  free = shutil.disk_usage(folder).free / 2**30
  print(f"ok    {free:.1f} GiB free in {folder}")
  if free < _NEEDED_GIB:
    problems.append(f"{free:.1f} GiB of disk is little; {_NEEDED_GIB} are safe")
  memory = _memory_gib()
  if memory is not None and memory < _NEEDED_GIB:
    problems.append(f"{memory:.1f} GiB of memory; the quick start needs {_NEEDED_GIB}")
  return problems


def _existing(folder: str) -> str:
  """The folder, or the nearest one above it: a workdir is made by its first run."""
  folder = os.path.abspath(folder)
  while not os.path.isdir(folder):
    folder = os.path.dirname(folder)
  return folder


def _memory_gib() -> float | None:
  """Total memory where the system tells it in /proc, else None."""
  if not os.path.exists("/proc/meminfo"):
    return None
  with open("/proc/meminfo") as file:
    found = re.search(r"MemTotal:\s+(\d+) kB", file.read())
  return int(found[1]) / 2**20 if found else None


if __name__ == "__main__":
  main()
