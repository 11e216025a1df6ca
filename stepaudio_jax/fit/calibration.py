"""The same prices held against a step that somebody has measured.

MaxText's 32B model on v5p-128, which are 64 chips: 71.47 % MFU (its README, "Runtime
Performance Results", github.com/google/maxtext at cc7478e). Our decoder takes its shape
(32 layers of 8192, 64 heads, 28,672, a vocabulary of 32,000; 2,048 tokens a row) with a
split and a batch of our own: fsdp over all chips, 3 rows on each, nothing but norms and
activations computed twice. Their MFU counts attention as if no mask hid half of it, and
so does the one that is compared here.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import logs, meshes, optim, steps
from stepaudio_jax.core import files
from stepaudio_jax.data.collate import Limits
from stepaudio_jax.fit import abstract, rows, work
from stepaudio_jax.fit.programs import Program
from stepaudio_jax.models import sizes, step_audio
from stepaudio_jax.pricing import topology

MEASURED_MFU = 0.7147
SLICE = "v5p:4x4x4"
_MESH = {"data": 1, "fsdp": -1, "tensor": 1, "context": 1}
_ROWS, _LENGTH = 192, 2048
_SHAPE = {
  "name": "maxtext_32b",
  "layers": 32,
  "width": 8192,
  "ffn_width": 28672,
  "heads": 64,
  "kv_heads": 64,
  "vocabulary": 32000,
}
_OPTIMISER = {
  "name": "adamw",
  "lr": 1e-4,
  "schedule": "constant",
  "warmup_steps": 0,
  "b1": 0.9,
  "b2": 0.95,
  "eps": 1e-8,
  "weight_decay": 0.1,
  "clip_norm": 1.0,
}


def program(where: topology.Topology) -> Program:
  """Our supervised step at the measured shape, text alone."""
  size = dataclasses.replace(sizes.size("step_audio_r1"), **_SHAPE)
  mesh = meshes.mesh(_MESH, where.devices)
  model = step_audio.named(
    size,
    dtype="bfloat16",
    remat="minimal",
    head_chunks=8,
    attention="splash",
    platform="tpu",
  )
  tx = optim.optimiser(ConfigDict(_OPTIMISER), 1000)
  params = abstract.params(size, mesh, {"decoder": jnp.float32})
  state = abstract.state(params, ("decoder",), tx)
  batch = abstract.batch(_ROWS, Limits(_LENGTH, 0, 0), size.encoder_width, mesh)
  step = functools.partial(
    steps.train_step, loss_fn=steps.next_token_loss(model, ()), tx=tx, microbatches=1
  )
  tokens = _ROWS * _LENGTH
  unmasked = work.attention(size, _ROWS * _LENGTH**2)
  masked = work.attention(size, _ROWS * _LENGTH**2 // 2)
  flops = work.decoded(size, _ROWS, _LENGTH, scored=tokens) - masked + unmasked
  return Program(
    "calibration",
    mesh,
    steps.jitted(step, state),
    (state, batch),
    flops=3 * flops,
    tokens=tokens,
  )


def row(folder: epath.PathLike) -> dict[str, Any]:
  """Predicted over measured; from `folder`, if it was made there by these prices."""
  path, key = epath.Path(folder) / "calibration.json", _key()
  if path.exists():
    found = json.loads(path.read_text())
    if found["key"] == key:
      return found
  logs.say(f"compiling the calibration for {SLICE}; it is kept at {path}")
  where = topology.topology(SLICE)
  made = rows.row(program(where), where, _SHAPE["name"])
  if not made["fits"]:
    raise ValueError(f"the calibration needs {made['hbm_peak_bytes']:,} bytes of HBM")
  made |= {
    "measured_mfu": MEASURED_MFU,
    "predicted_over_measured": made["mfu_expected"] / MEASURED_MFU,
    "key": key,
  }
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.aside(path) as partial:
    partial.write_text(json.dumps(made, indent=1) + "\n")
  return made


def note(made: dict[str, Any]) -> str:
  """For a report."""
  return (
    "Calibration: our decoder's step at the shape of MaxText's 32B model on 64 chips "
    f"of v5p is predicted to reach {made['mfu_expected']:.1%} MFU; "
    f"{made['measured_mfu']:.1%} was measured there (MaxText's README). "
    f"**Predicted / measured: {made['predicted_over_measured']:.2f}.**"
  )


def _key() -> str:
  """Of the compiler, the prices and this shape."""
  here = pathlib.Path(__file__).resolve()
  sources = [here, *sorted((here.parents[1] / "pricing").glob("*.py"))]
  digest = hashlib.blake2b(json.dumps(rows.versions()).encode(), digest_size=8)
  for source in sources:
    digest.update(source.read_bytes())
  return digest.hexdigest()
