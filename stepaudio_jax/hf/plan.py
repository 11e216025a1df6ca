"""What an import will do, told from headers alone, and everything that forbids it."""

import collections
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from etils import epath

from stepaudio_jax.core.disk import Stored
from stepaudio_jax.hf import folder as folders
from stepaudio_jax.hf import heads, kinds, safe, table
from stepaudio_jax.hf.folder import Folder
from stepaudio_jax.hf.kinds import Kind
from stepaudio_jax.hf.table import Entry
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.text import tokenizer as tokenizers
from stepaudio_jax.text.tokenizer import Tokenizer

DTYPES = {"bfloat16": safe.DTYPES["BF16"], "float32": safe.DTYPES["F32"], "keep": None}


@dataclasses.dataclass(frozen=True)
class Taken:
  """One tensor of a directory and its place in our tree."""

  tensor: Stored
  entry: Entry
  kind: Kind


@dataclasses.dataclass
class Count:
  """What of a part is in the directories; keys, parameters, bytes."""

  mapped: int = 0
  missing: int = 0
  left_over: int = 0
  left_out: int = 0
  parameters: int = 0
  bytes: int = 0


@dataclasses.dataclass
class Plan:
  """An import.

  Attributes:
    size: of the model; what the directories do not tell is that of another row.
    taken: path of our leaf → its tensors, one for each layer.
    dtypes: path → of our leaf, of parts that are made anew too.
    fresh: parts that are initialised anew.
    lacking: parts that the checkpoint will not have.
    counts: by part; what belongs to none is counted under "other".
    problems: while there is one, nothing can be imported.
  """

  sources: list[tuple[Folder, Kind]]
  size: Size
  tokenizer: Tokenizer | None
  fresh: tuple[str, ...]
  lacking: tuple[str, ...]
  taken: dict[str, list[Taken]]
  heads: dict[str, Stored]
  described: dict[str, list[str]]
  dtypes: dict[str, np.dtype]
  counts: dict[str, Count]
  problems: list[str]

  def refuse(self) -> None:
    """Raises:
    ValueError: with all problems, if there are any.
    """
    if self.problems:
      names = " and ".join(str(folder.path) for folder, _ in self.sources)
      raise ValueError("\n  ".join([f"{names} cannot be imported:", *self.problems]))

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Path → shape of every leaf of the checkpoint to be."""
    parts = [part for part in table.PARTS if part not in self.lacking]
    shapes = table.our_shapes(self.size, parts)
    return shapes | heads.our_shapes(self.heads)


def plan(
  sources: Sequence[epath.PathLike],
  *,
  dtype: str = "bfloat16",
  fresh: Sequence[str] | None = None,
  tokenizer: epath.PathLike | None = None,
  like: str = "step_audio_2_mini",
) -> Plan:
  """Reads configs, indices, headers and tokenizer.

  Args:
    dtype: of the leaves, one of DTYPES; "keep" is the tensors' own.
    fresh: parts to initialise anew; None is the adaptor, where encoder and decoder
      come from two directories (the paper's start), else nothing.
    tokenizer: a directory; None is that of the decoder.
    like: the size whose widths hold for parts that no directory has.

  Raises:
    FileNotFoundError: a directory is not there.
    ValueError: one is of no kind that is known, or the arguments do not fit together.
      Other problems are noted in the plan.
  """
  if dtype not in DTYPES:
    raise ValueError(f"unknown dtype {dtype!r}; the choices are {sorted(DTYPES)}")
  problems: list[str] = []
  opened = [_opened(source, problems) for source in sources]
  given = [part for _, kind in opened for part in kind.parts]
  fresh = _fresh(given, fresh)
  size = kinds.size([kind for _, kind in opened], like)
  counts = {part: Count() for part in (*table.PARTS, "other")}
  taken: dict[str, list[Taken]] = collections.defaultdict(list)
  for folder, kind in opened:
    if kind.measured:
      _take(folder, kind, size, taken, counts, problems)
  tensors, described = {}, {}
  if given == [*table.PARTS]:
    tensors, described = heads.opened(opened[0][0].path, size.width, problems)
  lacking = tuple(part for part in table.PARTS if part not in (*given, *fresh))
  made = Plan(
    sources=opened,
    size=size,
    tokenizer=_tokenizer(opened, tokenizer, size, problems),
    fresh=fresh,
    lacking=lacking,
    taken=dict(taken),
    heads=tensors,
    described=described,
    dtypes={},
    counts=counts,
    problems=problems,
  )
  made.dtypes = _dtypes(made, DTYPES[dtype])
  return made


def _opened(source: epath.PathLike, problems: list[str]) -> tuple[Folder, Kind]:
  folder = folders.opened(source)
  if not folder.config:
    raise ValueError("\n  ".join([f"{folder.path} is no model:", *folder.problems]))
  kind, wrong = kinds.kind(folder.config, folder.tensors)
  problems += [*folder.problems, *wrong]
  return folder, kind


def _fresh(given: list[str], fresh: Sequence[str] | None) -> tuple[str, ...]:
  twice = [part for part in table.PARTS if given.count(part) > 1]
  if twice:
    raise ValueError(f"parts {twice} are in two of the directories")
  if fresh is None:
    return ("adaptor",) if {"encoder", "decoder"} == set(given) else ()
  wrong = sorted(set(fresh) - set(table.PARTS) | set(fresh) & set(given))
  if wrong:
    choices = [part for part in table.PARTS if part not in given]
    raise ValueError(f"parts {wrong} cannot be fresh; the choices are {choices}")
  return tuple(part for part in table.PARTS if part in fresh)


def _take(
  folder: Folder,
  kind: Kind,
  size: Size,
  taken: dict[str, list[Taken]],
  counts: dict[str, Count],
  problems: list[str],
) -> None:
  """Finds the tensor of every entry, and the entry of every tensor."""
  used, name = set(), folder.path.name
  for entry in table.entries(size, kind.parts):
    key, count = kind.key(entry.key), counts[entry.row.part]
    if kind.tied and key == "lm_head.weight" and key not in folder.tensors:
      key = "model.embed_tokens.weight"
    tensor = folder.tensors.get(key)
    if tensor is None:
      count.missing += 1
      if not folder.told(key):
        problems.append(f"{name}: missing tensor {key}")
      continue
    wanted = _wanted(entry, kind, size, folder)
    if tensor.shape != wanted:
      problems.append(f"{name}: tensor {key} is {tensor.shape}, not {wanted}")
    count.mapped += 1
    if key not in used:
      count.parameters += math.prod(tensor.shape)
      count.bytes += tensor.nbytes
    used.add(key)
    taken[entry.row.path].append(Taken(tensor, entry, kind))
  for key in folder.tensors:
    if key.startswith(kind.left_out):
      counts["other"].left_out += 1
    elif key not in used:
      counts[_room(key)].left_over += 1
      problems.append(f"{name}: tensor {key} has no place in the model")


def _wanted(entry: Entry, kind: Kind, size: Size, folder: Folder) -> tuple[int, ...]:
  """The shape that the directory's tensor must have."""
  if kind.extended and entry.row.theirs == "V D":
    return (folder.config["vocab_size"], size.width)
  return table.their_shape(entry, size)


def _room(key: str) -> str:
  """The part that an unknown key seems to be of."""
  rooms = {"encoder": "encoder", "adapter": "adaptor", "model": "decoder"}
  return rooms.get(key.split(".")[0], "other")


def _tokenizer(
  opened: list[tuple[Folder, Kind]],
  given: epath.PathLike | None,
  size: Size,
  problems: list[str],
) -> Tokenizer | None:
  """The tokenizer; None for an encoder, which has no use for one."""
  decoders = [pair for pair in opened if "decoder" in pair[1].parts]
  if given is None and not decoders:
    return None
  folder, kind = decoders[0] if decoders else opened[0]
  try:
    if given is not None:
      found = tokenizers.load(given)
    else:
      found = tokenizers.load(folder.path, extend_qwen=kind.extended)
    special = found.special
  except (ValueError, OSError, KeyError, TypeError) as error:
    problems.append(f"tokenizer: {error}")
    return None
  if found.vocabulary_size > size.vocabulary:
    has = f"{found.vocabulary_size} ids, the embedding {size.vocabulary} rows"
    problems.append(f"tokenizer {found.name!r} has {has}")
  for name in ("audio_start", "audio_end", "audio_patch"):
    said = folder.config.get(f"{name}_id", getattr(special, name))
    if said != getattr(special, name):
      its = f"the tokenizer's <{name}> is {getattr(special, name)}"
      problems.append(f"config: {name}_id is {said!r}, but {its}")
  return found


def _dtypes(made: Plan, dtype: np.dtype | None) -> dict[str, np.dtype]:
  """Of every leaf; notes layers whose own dtypes differ where they are to be kept."""
  found = {}
  for path, some in made.taken.items():
    own = {str(taken.tensor.dtype): taken.tensor.dtype for taken in some}
    if dtype is None and len(own) > 1:
      keys = {
        name: next(t.entry.key for t in some if t.tensor.dtype == name) for name in own
      }
      made.problems.append(
        f"layers of {path} differ in dtype, which keep cannot: {keys}"
      )
    found[path] = dtype or next(iter(own.values()))
  most = collections.Counter(found.values()).most_common(1)
  anew = dtype or (most[0][0] if most else DTYPES["bfloat16"])
  for path in made.shapes:
    if path in made.heads:
      found[path] = made.heads[path].dtype
    found.setdefault(path, anew)
  return found


def _written(made: Plan) -> str:
  """What the checkpoint holds, and whether anything is rounded on the way."""
  count = {path: math.prod(shape) for path, shape in made.shapes.items()}
  total = sum(count.values())
  nbytes = sum(n * made.dtypes[path].itemsize for path, n in count.items())
  names = "/".join(sorted({str(made.dtypes[path]) for path in count}))
  pairs = sorted(
    {
      (str(taken.tensor.dtype), str(made.dtypes[path]))
      for path, some in made.taken.items()
      for taken in some
      if not np.can_cast(taken.tensor.dtype, made.dtypes[path])
    }
  )
  rounded = "".join(f"; {a} is rounded to {b}" for a, b in pairs)
  hint = " (--dtype float32 rounds nothing)" if pairs else ""
  return (
    f"the checkpoint: {total:,} parameters, {nbytes:,} bytes as {names}{rounded}{hint}"
  )


def summary(made: Plan) -> str:
  """For people: keys, parameters and bytes by part, and what comes from nowhere."""
  lines = [f"from {folder.path} ({kind.name})" for folder, kind in made.sources]
  names = ("mapped", "missing", "left over", "left out", "parameters", "bytes")
  lines.append(f"{'part':8}" + "".join(f"{name:>16}" for name in names))
  whole = Count()
  for part, count in [*made.counts.items(), ("all", whole)]:
    numbers = dataclasses.astuple(count)
    lines.append(f"{part:8}" + "".join(f"{number:16,}" for number in numbers))
    for field in dataclasses.fields(count) if part != "all" else ():
      setattr(
        whole, field.name, getattr(whole, field.name) + getattr(count, field.name)
      )
  lines.append(_written(made))
  lines.append(
    f"{whole.mapped} keys mapped, {whole.missing or 'none'} missing, "
    f"{whole.left_over or 'none'} left over; {whole.parameters:,} parameters, "
    f"{whole.bytes:,} bytes"
  )
  if made.heads:
    lines.append(f"reward heads: {', '.join(made.described['dimensions'])}")
  for part in made.fresh:
    lines.append(f"{part}: not in the source, initialised anew")
  for part in made.lacking:
    lines.append(
      f"{part}: not in the source; the checkpoint will lack it (--fresh {part} makes "
      "one)"
    )
  return "\n".join(lines)
