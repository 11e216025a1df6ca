"""How two model directories differ: every tensor, and what the two models predict.

Either may be a Hugging Face directory or a checkpoint of ours. Tensors are compared in
torch names, one of our leaves at a time, so that no model is ever whole in memory; for
the predictions each model is loaded alone. Both run through our own forward pass, in
float32: it is the weights that are compared, not two implementations.
"""

import contextlib
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepaudio_jax.audio import mel
from stepaudio_jax.core import lengths, tree
from stepaudio_jax.core.types import Array, Batch, Params
from stepaudio_jax.hf import blocks
from stepaudio_jax.hf import table as tables
from stepaudio_jax.hf.sides import Side
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.models.step_audio import StepAudio

SEED = 20_250_703  # of the prompts
CLIP_SAMPLES = 24_000  # 1.5 s: 19 audio tokens
PROMPT_TOKENS = 48
VERDICTS = ("equal", "equal after rounding", "NOT equal", "NOT finite, in both alike")
_SOME = 1 << 22  # elements that are compared at a time


def check(a: Side, b: Side, *, logits: bool = True) -> dict[str, Any]:
  """Compares two directories, as hf.sides describes them.

  Args:
    logits: compare predictions too, for which each model in turn is loaded.

  Returns:
    An object for JSON: "verdict", one of VERDICTS; "equal", whether every tensor is
    bit-identical in both and finite, and the configurations agree; the sides "a" and
    "b"; "only_a" and "only_b", keys; "shape_differences", "dtype_differences" and
    "config_differences"; "tensors", by key see `difference`; "rounding", a row {"a",
    "b", "to", "tensors", "equal"} for each pair of dtypes of which one is wider: how
    many tensors there are of it, and how many of them are equal once the wider is
    rounded to the narrower, "to"; "max_abs" and "max_abs_key", the largest;
    "first_difference", a key in packing order, or null; "logits", {"text", "audio"},
    see `divergence`, or {"left_out": why}, or null if they were not asked for.
  """
  packed = _packed(a, b)
  tensors, shapes = _tensors(a, b)
  fields = a.fields.keys() & b.fields.keys()
  report = {
    "a": _described(a),
    "b": _described(b),
    "only_a": [key for key in packed if key not in b.shapes],
    "only_b": [key for key in packed if key not in a.shapes],
    "shape_differences": shapes,
    "dtype_differences": [
      {"key": key, "a": str(a.dtypes[key]), "b": str(b.dtypes[key])}
      for key in _shared(a, b)
      if a.dtypes[key] != b.dtypes[key]
    ],
    "config_differences": [
      {"name": name, "a": a.fields[name], "b": b.fields[name]}
      for name in sorted(fields)
      if a.fields[name] != b.fields[name]
    ],
    "tensors": tensors,
  }
  worst = max(tensors, key=lambda key: tensors[key]["max_abs"], default=None)
  report["max_abs"] = tensors[worst]["max_abs"] if tensors else None
  report["max_abs_key"] = worst if report["max_abs"] else None
  report["first_difference"] = _first_difference(report, a, b)
  report["rounding"] = _rounding(report)
  report["logits"] = _logits(a, b) if logits else None
  report["verdict"] = _verdict(report)
  report["equal"] = report["verdict"] == "equal"
  return report


def _rounding(report: Mapping[str, Any]) -> list[dict[str, Any]]:
  rows: dict[tuple[str, str], dict[str, Any]] = {}
  for pair in report["dtype_differences"]:
    row = report["tensors"].get(pair["key"])
    if row and row["rounded_to"]:
      key = pair["a"], pair["b"]
      names = {"a": pair["a"], "b": pair["b"], "to": row["rounded_to"]}
      found = rows.setdefault(key, names | {"tensors": 0, "equal": 0})
      found["tensors"] += 1
      found["equal"] += row["equal_rounded"]
  return [*rows.values()]


def _verdict(report: Mapping[str, Any]) -> str:
  rows = report["tensors"].values()
  other = (
    *report["only_a"],
    *report["only_b"],
    *report["shape_differences"],
    *report["config_differences"],
  )
  if other or not all(row["bit_equal"] or row["equal_rounded"] for row in rows):
    return "NOT equal"
  predicted = [
    row for row in (report["logits"] or {}).values() if isinstance(row, dict)
  ]
  if any(row["broken"] for row in rows) or any(
    None in row.values() for row in predicted
  ):
    return "NOT finite, in both alike"
  return "equal" if all(row["bit_equal"] for row in rows) else "equal after rounding"


def _described(side: Side) -> dict[str, Any]:
  dtypes = [str(dtype) for dtype in side.dtypes.values()]
  return {
    "path": str(side.path),
    "kind": side.kind,
    "tensors": len(side.shapes),
    "parameters": side.parameters,
    "bytes": side.bytes,
    "dtypes": {name: dtypes.count(name) for name in sorted(set(dtypes))},
  }


def _shared(a: Side, b: Side) -> list[str]:
  return [key for key in _packed(a, b) if key in a.shapes and key in b.shapes]


def _packed(a: Side, b: Side) -> list[str]:
  """Keys of either in packing order; those that the table does not know come last."""
  known = [*tables.their_shapes(a.size), *tables.their_shapes(b.size)]
  order = dict.fromkeys([*known, *a.shapes, *b.shapes])
  return [key for key in order if key in a.shapes or key in b.shapes]


def _tensors(a: Side, b: Side) -> tuple[dict[str, dict], list[dict]]:
  """(differences by key, shapes that differ), in packing order."""
  shared = _shared(a, b)
  unlike = {key for key in shared if a.shapes[key] != b.shapes[key]}
  groups: dict[tuple[str, str], list[str]] = {}
  for key in shared:
    if key not in unlike:
      groups.setdefault((a.leaf[key], b.leaf[key]), []).append(key)
  found = {}
  for (of_a, of_b), keys in groups.items():
    with contextlib.ExitStack() as stack:
      read_a, read_b = (
        stack.enter_context(side.opened(leaf)) for side, leaf in ((a, of_a), (b, of_b))
      )
      for key in keys:
        found[key] = difference(read_a(key), read_b(key))
  shapes = [
    {"key": key, "a": [*a.shapes[key]], "b": [*b.shapes[key]]}
    for key in shared
    if key in unlike
  ]
  return {key: found[key] for key in shared if key in found}, shapes


def difference(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
  """How two tensors of one shape differ.

  Returns:
    {"max_abs", "bit_equal"; "non_finite", of differences that are not finite, which are
    not in max_abs, their number: one value is not finite, and the other has not its
    very bits; "broken", of values in either that are not finite, theirs; "rounded_to",
    the narrower of two dtypes, if one is; "equal_rounded", whether the wider is
    bit-identical once it is rounded to that}.
  """
  largest, equal, broken, bad = 0.0, a.dtype == b.dtype, 0, 0
  narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
  rounds = rounded = a.dtype.itemsize != b.dtype.itemsize
  a, b = np.atleast_1d(a), np.atleast_1d(b)
  rows = max(1, _SOME // max(1, math.prod(a.shape[1:])))
  for start in range(0, len(a), rows):
    some_a, some_b = (np.ascontiguousarray(x[start : start + rows]) for x in (a, b))
    bad += blocks.not_finite(some_a) + blocks.not_finite(some_b)
    rounded = rounded and _same(*(_as(x, narrow) for x in (some_a, some_b)))
    if a.dtype == b.dtype:
      unsigned = f"u{a.dtype.itemsize}"
      same = some_a.view(unsigned) == some_b.view(unsigned)
      if same.all():
        continue
      equal = False
      some_a, some_b = some_a[~same], some_b[~same]
    with np.errstate(invalid="ignore"):
      gap = np.abs(some_a.astype(np.float64) - some_b.astype(np.float64))
    finite = np.isfinite(gap)
    broken += int(np.count_nonzero(~finite))
    largest = max(largest, float(gap[finite].max(initial=0.0)))
  return {
    "max_abs": largest,
    "bit_equal": bool(equal),
    "non_finite": broken,
    "broken": bad,
    "rounded_to": str(narrow) if rounds else None,
    "equal_rounded": bool(rounded),
  }


def _as(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
  with np.errstate(over="ignore", invalid="ignore"):
    return array.astype(dtype, copy=False)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
  unsigned = f"u{a.dtype.itemsize}"
  return bool((a.view(unsigned) == b.view(unsigned)).all())


def _first_difference(report: Mapping[str, Any], a: Side, b: Side) -> str | None:
  wrong = {row["key"] for row in report["shape_differences"]}
  wrong |= {*report["only_a"], *report["only_b"]}
  wrong |= {key for key, row in report["tensors"].items() if not row["bit_equal"]}
  return next((key for key in _packed(a, b) if key in wrong), None)


def _logits(a: Side, b: Side) -> dict[str, Any]:
  """Differences of the next-token logits at every position of two prompts."""
  vocabularies = [side.size.vocabulary for side in (a, b)]
  if len(set(vocabularies)) > 1:
    return {"left_out": f"vocabularies of {vocabularies} tokens"}
  if any("decoder" not in side.parts for side in (a, b)):
    return {"left_out": "a side has no whole decoder"}
  hears = all(
    side.parts == {*tables.PARTS} and side.size.mel_bins == mel.MEL_BINS
    for side in (a, b)
  )
  of_a, of_b = (_predicted(side, hears) for side in (a, b))
  out = {name: divergence(of_a[name], of_b[name]) for name in of_a}
  return out if hears else out | {"audio": {"left_out": "a side cannot hear"}}


def _predicted(side: Side, hears: bool) -> dict[str, np.ndarray]:
  """Logits [T, V] by the name of the prompt; the model is gone when they are there."""
  params = tree.nested((path, jnp.asarray(leaf)) for path, leaf in side.leaves())
  generator = np.random.default_rng(SEED)
  token_T = generator.integers(0, side.size.vocabulary, PROMPT_TOKENS, np.int32)
  samples_N = generator.normal(0, 0.1, CLIP_SAMPLES)
  text = _batch(token_T, None)
  out = {"text": np.asarray(_forward(params, text, side.size))[0]}
  if hears:
    frames_UE = _encoded(params, side.size, samples_N)
    heard = _batch(token_T, frames_UE)
    out["audio"] = np.asarray(_forward(params, heard, side.size))[0]
  return out


@functools.partial(jax.jit, static_argnames="size")
def _forward(params: Params, batch: Batch, size: Size) -> Array:
  return StepAudio(size).apply({"params": params}, batch)


@functools.partial(jax.jit, static_argnames="size")
def _encode(params: Params, mel_BLM: Array, count_B: Array, size: Size):
  return StepAudio(size).apply({"params": params}, mel_BLM, count_B, method="encode")


def _encoded(params: Params, size: Size, samples_N: np.ndarray) -> np.ndarray:
  mel_LM = mel.log_mel(samples_N)
  count_B = np.asarray([len(samples_N)], np.int32)
  frames_BUE, _ = _encode(params, mel_LM[None], count_B, size)
  return np.asarray(frames_BUE)[0]


def _batch(token_T: np.ndarray, frames_UE: np.ndarray | None) -> Batch:
  """One row; a clip, if there is one, takes the place of tokens in its middle."""
  audio_T, frames_BRUE = np.full(len(token_T), -1, np.int32), np.zeros((1, 0, 0, 1))
  if frames_UE is not None:
    frames_BRUE = np.pad(frames_UE, ((0, len(frames_UE) % 2), (0, 0)))[None, None]
    heard = lengths.audio_tokens(CLIP_SAMPLES)
    audio_T[8 : 8 + heard] = np.arange(heard)
  count = lengths.encoder_frames(CLIP_SAMPLES)
  one_BT = np.ones((1, len(token_T)), np.int32)
  return Batch(
    token_BT=token_T[None],
    segment_BT=one_BT,
    position_BT=np.arange(len(token_T), dtype=np.int32)[None],
    loss_BT=one_BT > 0,
    example_BT=one_BT,
    source_BT=one_BT,
    frames_BRUE=frames_BRUE.astype(np.float32),
    frame_count_BR=np.full(frames_BRUE.shape[:2], count, np.int32),
    audio_BT=audio_T[None],
  )


def divergence(a_TV: np.ndarray, b_TV: np.ndarray) -> dict[str, Any]:
  """{"max_abs" of logits, "kl_mean" and "kl_max" of KL(a ∥ b) in nats, "same_argmax"}.

  Over the positions of a prompt; numbers that are not finite become null.
  """
  a_TV, b_TV = a_TV.astype(np.float64), b_TV.astype(np.float64)
  log_a_TV, log_b_TV = _log_softmax(a_TV), _log_softmax(b_TV)
  kl_T = (np.exp(log_a_TV) * (log_a_TV - log_b_TV)).sum(1)
  out = {
    "max_abs": np.abs(a_TV - b_TV).max(),
    "kl_mean": kl_T.mean(),
    "kl_max": kl_T.max(),
    "same_argmax": (a_TV.argmax(1) == b_TV.argmax(1)).mean(),
  }
  return {k: float(v) if math.isfinite(v) else None for k, v in out.items()}


def _log_softmax(logits_TV: np.ndarray) -> np.ndarray:
  shifted_TV = logits_TV - logits_TV.max(1, keepdims=True)
  return shifted_TV - np.log(np.exp(shifted_TV).sum(1, keepdims=True))
