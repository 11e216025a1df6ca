"""The one table of torch keys and parameter paths; export and import both read it.

A row spells both layouts in axis letters: "DHh" is our kernel, "Hh D" the torch tensor
whose first axis merges H and h. Permutation, reshape and every shape follow from that.

Beyond the alphabet of core/types.py: I conv input channels, X adaptor hidden width,
P encoder positions, k conv taps.
"""

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping

import numpy as np

from stepaudio_jax.models.sizes import Size
from stepaudio_jax.models.step_audio import PARTS


@dataclasses.dataclass(frozen=True)
class Row:
  """One parameter; "{}" in the key is the layer, our leaf then has a leading Z."""

  key: str
  path: str
  ours: str
  theirs: str

  @property
  def stacked(self) -> bool:
    return "{}" in self.key

  @property
  def straight(self) -> bool:
    """Whether both have their elements in one order."""
    return self.ours == self.theirs.replace(" ", "")

  @property
  def part(self) -> str:
    return self.path.split("/")[0]


@dataclasses.dataclass(frozen=True)
class Entry:
  """One torch tensor: its key, its row and its layer (None where not stacked)."""

  key: str
  row: Row
  layer: int | None


def _under(key: str, path: str, *rows: tuple[str, str, str, str]) -> tuple[Row, ...]:
  return tuple(Row(key + k, path + p, ours, theirs) for k, p, ours, theirs in rows)


# The order is the packing order of the shards: model, encoder, adapter, lm_head.
ROWS = (
  *_under(
    "model.",
    "decoder/",
    ("embed_tokens.weight", "embed/embedding", "VD", "V D"),
  ),
  *_under(
    "model.layers.{}.",
    "decoder/layers/",
    ("self_attn.q_proj.weight", "attn/query/kernel", "DHh", "Hh D"),
    ("self_attn.q_proj.bias", "attn/query/bias", "Hh", "Hh"),
    ("self_attn.k_proj.weight", "attn/key/kernel", "DKh", "Kh D"),
    ("self_attn.k_proj.bias", "attn/key/bias", "Kh", "Kh"),
    ("self_attn.v_proj.weight", "attn/value/kernel", "DKh", "Kh D"),
    ("self_attn.v_proj.bias", "attn/value/bias", "Kh", "Kh"),
    ("self_attn.o_proj.weight", "attn/out/kernel", "HhD", "D Hh"),
    ("mlp.gate_proj.weight", "mlp/gate/kernel", "DF", "F D"),
    ("mlp.up_proj.weight", "mlp/up/kernel", "DF", "F D"),
    ("mlp.down_proj.weight", "mlp/down/kernel", "FD", "D F"),
    ("input_layernorm.weight", "attn_norm/scale", "D", "D"),
    ("post_attention_layernorm.weight", "mlp_norm/scale", "D", "D"),
  ),
  *_under("model.", "decoder/", ("norm.weight", "norm/scale", "D", "D")),
  *_under(
    "encoder.",
    "encoder/",
    ("conv1.weight", "conv1/kernel", "kME", "E M k"),
    ("conv1.bias", "conv1/bias", "E", "E"),
    ("conv2.weight", "conv2/kernel", "kIE", "E I k"),
    ("conv2.bias", "conv2/bias", "E", "E"),
    ("positional_embedding.weight", "positions", "PE", "P E"),
  ),
  *_under(
    "encoder.blocks.{}.",
    "encoder/blocks/",
    ("attn.query.weight", "attn/query/kernel", "EHh", "Hh E"),
    ("attn.query.bias", "attn/query/bias", "Hh", "Hh"),
    ("attn.key.weight", "attn/key/kernel", "EHh", "Hh E"),
    ("attn.value.weight", "attn/value/kernel", "EHh", "Hh E"),
    ("attn.value.bias", "attn/value/bias", "Hh", "Hh"),
    ("attn.out.weight", "attn/out/kernel", "HhE", "E Hh"),
    ("attn.out.bias", "attn/out/bias", "E", "E"),
    ("attn_ln.weight", "attn_norm/scale", "E", "E"),
    ("attn_ln.bias", "attn_norm/bias", "E", "E"),
    ("mlp.0.weight", "mlp/up/kernel", "EF", "F E"),
    ("mlp.0.bias", "mlp/up/bias", "F", "F"),
    ("mlp.2.weight", "mlp/down/kernel", "FE", "E F"),
    ("mlp.2.bias", "mlp/down/bias", "E", "E"),
    ("mlp_ln.weight", "mlp_norm/scale", "E", "E"),
    ("mlp_ln.bias", "mlp_norm/bias", "E", "E"),
  ),
  *_under(
    "encoder.",
    "encoder/",
    ("after_norm.weight", "after_norm/scale", "E", "E"),
    ("after_norm.bias", "after_norm/bias", "E", "E"),
  ),
  *_under(
    "adapter.",
    "adaptor/",
    ("conv.weight", "conv/kernel", "kIE", "E I k"),
    ("conv.bias", "conv/bias", "E", "E"),
    ("linear1.weight", "linear1/kernel", "EX", "X E"),
    ("linear1.bias", "linear1/bias", "X", "X"),
    ("linear2.weight", "linear2/kernel", "XD", "D X"),
    ("linear2.bias", "linear2/bias", "D", "D"),
  ),
  Row("lm_head.weight", "decoder/head/kernel", "DV", "V D"),
)


def axes(size: Size, path: str) -> dict[str, int]:
  """Length of every letter in the room (encoder, adaptor or decoder) of `path`."""
  E, room = size.encoder_width, path.split("/")[0]
  if room == "encoder":
    heads = {"H": size.encoder_heads, "h": E // size.encoder_heads, "F": 4 * E}
    stem = {"k": 3, "M": size.mel_bins, "E": E, "I": E, "P": size.audio_positions}
    return {"Z": size.encoder_layers, **heads, **stem}
  if room == "adaptor":
    return {"k": 3, "E": E, "I": E, "X": size.adaptor_width, "D": size.width}
  heads = {"H": size.heads, "K": size.kv_heads, "h": size.head_width}
  widths = {"V": size.vocabulary, "D": size.width, "F": size.ffn_width}
  return {"Z": size.layers, **heads, **widths}


def our_shapes(
  size: Size, parts: Collection[str] = PARTS
) -> dict[str, tuple[int, ...]]:
  """Path → shape of every leaf of those parts, stacked layers first."""
  shapes = {}
  for row in ROWS:
    if row.part in parts:
      length = axes(size, row.path)
      letters = "Z" + row.ours if row.stacked else row.ours
      shapes[row.path] = tuple(length[letter] for letter in letters)
  return shapes


def their_shapes(size: Size) -> dict[str, tuple[int, ...]]:
  """Key → torch shape of every tensor, in packing order."""
  return {entry.key: their_shape(entry, size) for entry in entries(size)}


def their_shape(entry: Entry, size: Size) -> tuple[int, ...]:
  """The torch tensor's."""
  length = axes(size, entry.row.path)
  groups = entry.row.theirs.split()
  return tuple(math.prod(length[axis] for axis in group) for group in groups)


def entries(size: Size, parts: Collection[str] = PARTS) -> list[Entry]:
  """Every torch tensor of those parts in packing order: all of layer 0, of 1, …"""
  found = []
  rows_of_parts = (row for row in ROWS if row.part in parts)
  for stacked, group in itertools.groupby(rows_of_parts, key=lambda row: row.stacked):
    rows = tuple(group)
    layers = range(axes(size, rows[0].path)["Z"]) if stacked else (None,)
    found += [
      Entry(row.key.format(layer), row, layer) for layer in layers for row in rows
    ]
  return found


def theirs(leaf: np.ndarray, entry: Entry) -> np.ndarray:
  """The torch tensor inside our leaf: a view, to read from or to write to."""
  return of_layer(leaf if entry.layer is None else leaf[entry.layer], entry)


def of_layer(array: np.ndarray, entry: Entry) -> np.ndarray:
  """The same of the one layer of the leaf that it is in."""
  groups = entry.row.theirs.split()
  letters = "".join(groups)
  permuted = array.transpose([entry.row.ours.index(letter) for letter in letters])
  length = dict(zip(letters, permuted.shape, strict=True))
  view = permuted.reshape([math.prod(length[a] for a in group) for group in groups])
  assert np.may_share_memory(view, array) or not array.size, entry.key
  return view


def ours(tensor: np.ndarray, entry: Entry, size: Size) -> np.ndarray:
  """The torch tensor as a view with our leaf's axes (one layer of a stacked leaf)."""
  letters, length = entry.row.theirs.replace(" ", ""), axes(size, entry.row.path)
  split = tensor.reshape([length[letter] for letter in letters])
  return split.transpose([letters.index(letter) for letter in entry.row.ours])


def check(found: Mapping[str, tuple[int, ...]], size: Size) -> None:
  """That leaves, path → shape, are those of a whole model of that size.

  Raises:
    ValueError: listing every path missing, unknown or of another shape.
  """
  wanted = our_shapes(size)
  wrong = [f"missing parameter {path}" for path in wanted if path not in found]
  wrong += [f"unknown parameter {path}" for path in found if path not in wanted]
  for path, shape in wanted.items():
    if found.get(path, shape) != shape:
      wrong.append(f"parameter {path} is {found[path]}, not {shape}")
  if wrong:
    raise ValueError(f"not a {size.name} model:\n  " + "\n  ".join(wrong))
