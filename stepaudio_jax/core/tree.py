"""Names, sizes and hashes of parameter trees."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from stepaudio_jax.core.types import Params


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
  """Yields ("decoder/layers/attn/query/kernel", leaf) in a fixed order."""
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    yield path_text(path), leaf


def nested(leaves: Iterable[tuple[str, Any]]) -> Params:
  """The tree of `named_leaves`: the reverse."""
  out: Params = {}
  for path, leaf in leaves:
    *rooms, name = path.split("/")
    node = out
    for room in rooms:
      node = node.setdefault(room, {})
    node[name] = leaf
  return out


def path_text(path: Any) -> str:
  """A path of jax.tree_util as text, "decoder/norm/scale"."""
  return "/".join(_key_text(key) for key in path)


def _key_text(key: Any) -> str:
  for name in ("key", "name", "idx"):
    if hasattr(key, name):
      return str(getattr(key, name))
  raise TypeError(f"unnamed tree key {key!r}")


def parameter_count(tree: Any) -> int:
  return sum(int(np.prod(leaf.shape)) for _, leaf in named_leaves(tree))


def content_hash(tree: Any) -> str:
  """blake2b over names, shapes, dtypes and bytes: equal exactly where all are."""
  digest = hashlib.blake2b(digest_size=16)
  for name, leaf in named_leaves(tree):
    array = np.ascontiguousarray(jax.device_get(leaf))
    digest.update(f"{name}{array.shape}{array.dtype}".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()


def split(params: Params, names: tuple[str, ...]) -> tuple[Params, Params]:
  """Parts a tree by its top-level names: (the named, the others).

  Raises:
    KeyError: a name is not there; the choices are listed.
  """
  missing = sorted(set(names) - set(params))
  if missing:
    raise KeyError(f"no parameters named {missing}; there are {sorted(params)}")
  named = {key: params[key] for key in params if key in names}
  return named, {key: params[key] for key in params if key not in names}
