"""Other code bases' GRPO steps and generation on the work of experiments/bench_rl.py.

Their scripts lie beside the repository, in ../shared/peers. Each peer has a virtual
environment of its own, which is made here with pip unless it is there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.bench_rl_ours import Job

SCRIPTS = Path(__file__).resolve().parents[2] / "shared" / "peers"
ENVIRONMENTS = {
  "venv_torch": (
    *("torch==2.13.0", "transformers", "trl", "datasets", "accelerate", "librosa"),
  ),
  "venv_tunix": ("google-tunix",),
}
PEERS = ("trl", "tunix", "generate")
# Steps of tunix that compile; its script leaves them out.
_SKIPPED = 3
# Their scripts wait for a quiet machine and leave out what was disturbed. Ours does
# neither, so all are timed alike: plain medians, at once.
_ALIKE = "import common\ncommon.wait_quiet, common.QUIET = lambda *_: 0.0, 1e9\n"


def python(workdir: Path, name: str) -> Path:
  """The interpreter of an environment; made, or found where it is whole."""
  folder, wanted = workdir.resolve() / name, " ".join(ENVIRONMENTS[name])
  made = folder / "installed.txt"
  if not made.exists() or made.read_text() != wanted:
    print(f"making {folder} ({wanted})", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q"]
    subprocess.run([*pip, *ENVIRONMENTS[name]], check=True)
    made.write_text(wanted)
  return folder / "bin" / "python"


def trl(workdir: Path, job: Job, timed: int) -> dict[str, Any]:
  """Median seconds of TRL's step and the tokens that it drew.

  End-of-text is not drawn before the limit, and what was drawn is counted.
  """
  sizes = f"{job.prompts}, {job.samples}, {job.prompt_tokens}, {job.new_tokens}"
  edits = {
    "CLEN, STEPS = 8, 4, 64, 64, 6": f"CLEN, STEPS = {sizes}, {timed + 1}",
    "temperature=1.0,": (
      'temperature=1.0, generation_kwargs={"min_new_tokens": CLEN},'
    ),
    "def reward(completions, **kw): return": (
      "drawn = []\ndef reward(completions, completion_ids, **kw): "
      "drawn.append(sum(map(len, completion_ids))); return"
    ),
    '"tokens_per_step": PROMPTS * GROUP * CLEN': '"tokens_per_step": drawn[-1]',
  }
  found = _ran(workdir, "trl_grpo.py", "venv_torch", edits)
  return {"step_s": found["step_s"], "tokens": found["tokens_per_step"], "all": found}


def tunix(workdir: Path, job: Job, timed: int) -> dict[str, Any]:
  """The same of tunix; a step takes as long wherever its replies end."""
  sizes = f"{job.prompts}, {job.samples}, {job.prompt_tokens}, {job.new_tokens}"
  edits = {"PLEN, CLEN = 8, 4, 64, 64": f"PLEN, CLEN = {sizes}"}
  steps = {"PEER_STEPS": str(timed + _SKIPPED)}
  found = _ran(workdir, "tunix_grpo.py", "venv_tunix", edits, **steps)
  drawn = found["mean_completion_tokens"] * job.prompts * job.samples
  return {"step_s": found["step_s"]["median"], "tokens": round(drawn), "all": found}


def generate(workdir: Path) -> dict[str, Any]:
  """Tokens a second of transformers' `generate()`: job A's shape, its faster cache."""
  found = _ran(workdir, "hf_generate.py", "venv_torch", {})
  rates = [cache["tokens_per_s"] for cache in found["generate_s"].values()]
  return {"tokens_per_s": max(rates), "all": found}


def _ran(
  workdir: Path, script: str, environment: str, edits: dict[str, str], **variables: str
) -> dict[str, Any]:
  """The JSON object that a script prints last.

  Args:
    edits: text of the script → what stands there instead.

  Raises:
    FileNotFoundError: there are no scripts.
    ValueError: the script does not hold the text to be edited once.
    RuntimeError: it failed, with the end of what it said.
  """
  source = SCRIPTS / script
  if not source.exists():
    raise FileNotFoundError(f"{source} is missing; --peers none runs ours alone")
  text = source.read_text()
  for old, new in edits.items():
    if text.count(old) != 1:
      raise ValueError(f"{source} holds {old!r} {text.count(old)} times, not once")
    text = text.replace(old, new)
  edited = workdir.resolve() / script
  edited.write_text(_ALIKE + text)
  done = subprocess.run(
    [python(workdir, environment), edited],
    env=os.environ | {"PYTHONPATH": str(SCRIPTS)} | variables,
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise RuntimeError(f"{script} ended with {done.returncode}: {done.stderr[-2000:]}")
  lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
  return json.loads(lines[-1])
