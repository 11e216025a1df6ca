"""What an endpoint has said, on disk, so that nothing is asked (and paid) twice.

One small JSON file for each request, under the hash of all that it depends on: address,
model, settings, and every message with its sounds. Files are written aside and renamed:
threads, processes and a kill at any moment leave whole entries or none. An entry that
somebody has damaged is asked for again.
"""

import hashlib
import json
from typing import Any, NamedTuple

from etils import epath

from stepaudio_jax.core import files, levels

_KIND = "said/1"


class Said(NamedTuple):
  """One completion.

  Attributes:
    cut: max_tokens ended it.
    prompt_tokens, completion_tokens: as the server counts; 0 where it does not say.
    weights: probabilities of the six levels, where it was asked for them and tells.
  """

  text: str
  cut: bool
  prompt_tokens: int = 0
  completion_tokens: int = 0
  weights: tuple[float, ...] | None = None


class Damaged(Exception):
  """An entry that cannot be read."""


class Kept:
  """Completions by key; the folder may be shared, in a bucket too."""

  def __init__(self, folder: epath.PathLike):
    self._folder = epath.Path(folder)

  def read(self, key: str) -> Said | None:
    """None where there is no entry.

    Raises:
      Damaged: there is one, and it is not what `write` has written.
    """
    try:
      text = self._path(key).read_text()
    except FileNotFoundError:
      return None
    except UnicodeDecodeError as error:
      raise Damaged(str(error)) from error
    try:
      row = json.loads(text)
      said = Said(**row["said"])
      if said.weights is not None:
        levels.expected(said.weights)
        said = said._replace(weights=tuple(map(float, said.weights)))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      raise Damaged(f"{type(error).__name__}: {error}") from error
    kinds = [type(value) for value in said[: len(_KINDS)]]
    if row.get("schema") != _KIND or row.get("key") != key or kinds != _KINDS:
      raise Damaged(f"{self._path(key)} is no entry of its name")
    return said

  def write(self, key: str, said: Said) -> None:
    row = {"schema": _KIND, "key": key, "said": said._asdict()}
    with files.aside(self._path(key)) as partial:
      partial.write_text(json.dumps(row))

  def _path(self, key: str) -> epath.Path:
    return self._folder / key[:2] / f"{key}.json"


_KINDS = [str, bool, int, int]  # of an entry's values, but for the weights


def key(url: str, body: dict[str, Any]) -> str:
  """What names a request, wherever and whenever it is made."""
  content = json.dumps([url, body], sort_keys=True, ensure_ascii=True)
  return hashlib.sha256(content.encode()).hexdigest()
