"""Who judges, as people write it: rule, a checkpoint's folder, or an endpoint."""

import dataclasses
from typing import Literal
from urllib import parse

from etils import epath

RULE = "rule"
WHO = (
  "a folder with a checkpoint, or 'http(s)://host[:port]/v1#model' of an "
  "OpenAI-compatible endpoint"
)
_CHOICES = f"{RULE!r}, {WHO}"


@dataclasses.dataclass(frozen=True)
class Choice:
  """One judge.

  Attributes:
    kind: "rule": nobody is asked.
    place: the folder or the address; "" of a rule.
    model: at the endpoint; "" elsewhere.
  """

  kind: Literal["rule", "local", "endpoint"]
  place: str = ""
  model: str = ""


def choice(text: str) -> Choice:
  """What `text` names.

  Raises:
    ValueError: nothing of the three; an address without a model, or one with a
      password or query, which would be printed beside results.
  """
  if text == RULE:
    return Choice("rule")
  if text.lower().startswith(("http://", "https://")):
    return _endpoint(text)
  if text and _is_folder(text):
    return Choice("local", text)
  raise ValueError(f"judge {text!r} is no folder; the choices are {_CHOICES}")


def _is_folder(text: str) -> bool:
  try:
    return epath.Path(text).is_dir()
  except KeyError:  # a scheme that epath does not know
    return False


def _endpoint(text: str) -> Choice:
  url = parse.urlsplit(text)
  if "@" in url.netloc or url.query:
    place = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
    raise ValueError(
      f"the judge at {place} has a user name, password or query in its address; a key "
      "belongs into an environment variable"
    )
  if not url.hostname or not url.fragment:
    raise ValueError(f"judge {text!r} lacks a host or '#model'; wanted is {_CHOICES}")
  place = parse.urlunsplit((url.scheme, url.netloc, url.path.rstrip("/"), "", ""))
  return Choice("endpoint", place, url.fragment)
