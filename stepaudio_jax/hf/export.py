"""Our parameters → a Hugging Face model folder that loads on its own."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from etils import epath

from stepaudio_jax.core.types import Params
from stepaudio_jax.hf import files, table
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.text.tokenizer import Tokenizer

SHARD_BYTES = 5_000_000_000
DTYPES = {"bfloat16": np.dtype(jnp.bfloat16), "float32": np.dtype(np.float32)}


def export(
  params: Params,
  size: Size,
  folder: str | epath.PathLike,
  *,
  tokenizer: Tokenizer,
  card: Mapping[str, Any],
  dtype: str = "bfloat16",
) -> None:
  """Writes weights, configs, tokenizer, remote code and model card to a new folder.

  The folder appears under its name only when it is complete: everything is written
  to "<name>.partial" beside it (an older one, left by a killed run, is replaced).

  Args:
    params: {"encoder", "adaptor", "decoder"}, unboxed, of that size.
    card: what README.md says, exactly `files.CARD_KEYS`.
    dtype: of the tensors, one of DTYPES.

  Raises:
    FileExistsError: there is something under that name already.
    ValueError: a parameter, the tokenizer, the card or the dtype does not fit, or a
      tensor is not finite; nothing is left behind.
  """
  target = epath.Path(folder)
  if dtype not in DTYPES:
    raise ValueError(f"unknown dtype {dtype!r}; the choices are {sorted(DTYPES)}")
  if target.exists():
    raise FileExistsError(f"{target} exists; export to a new folder")
  if tokenizer.vocabulary_size > size.vocabulary:
    raise ValueError(
      f"tokenizer {tokenizer.name!r} has {tokenizer.vocabulary_size} ids, the "
      f"embedding of size {size.name} only {size.vocabulary}"
    )
  tensors = table.tensors(params, size)
  aside = target.parent / f"{target.name}.partial"
  if aside.exists():
    aside.rmtree()
  aside.mkdir(parents=True)
  try:
    count = sum(int(np.prod(shape)) for shape in table.their_shapes(size).values())
    files.write(aside, size, tokenizer, dtype, card, count)
    _write_weights(aside, tensors, size, DTYPES[dtype])
    aside.rename(target)
  except BaseException:
    aside.rmtree()
    raise


def shards(size: Size, item_bytes: int, cap: int) -> list[list[str]]:
  """Keys of each shard: packed in order, a new shard where the next would not fit."""
  out: list[list[str]] = [[]]
  used = 0
  for key, shape in table.their_shapes(size).items():
    needed = int(np.prod(shape)) * item_bytes
    if out[-1] and used + needed > cap:
      out.append([])
      used = 0
    out[-1].append(key)
    used += needed
  return out


def weight_map(packed: list[list[str]]) -> dict[str, str]:
  """Key → file name, as the index has it."""
  names = [
    f"model-{i + 1:05d}-of-{len(packed):05d}.safetensors" for i in range(len(packed))
  ]
  return {key: name for name, keys in zip(names, packed, strict=True) for key in keys}


def _write_weights(
  folder: epath.Path,
  tensors: Iterator[tuple[str, np.ndarray]],
  size: Size,
  dtype: np.dtype,
) -> None:
  packed = shards(size, dtype.itemsize, SHARD_BYTES)
  where = weight_map(packed)
  total = 0
  for keys in packed:
    shard = {key: _cast(*next(tensors), dtype, key) for key in keys}
    total += sum(array.nbytes for array in shard.values())
    data = safetensors.numpy.save(shard, metadata={"format": "pt"})
    (folder / where[keys[0]]).write_bytes(data)
  index = {"metadata": {"total_size": total}, "weight_map": where}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _cast(key: str, array: np.ndarray, dtype: np.dtype, wanted: str) -> np.ndarray:
  assert key == wanted, (key, wanted)  # tensors come in packing order
  cast = array.astype(dtype)
  if not np.isfinite(cast).all():
    raise ValueError(f"{key} is not finite as {dtype}")
  return cast
