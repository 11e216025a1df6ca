"""HTML of templates: escaped, strict about names, with nothing to fetch."""

import json
import pathlib
from typing import Any

import jinja2
import markupsafe

from stepaudio_jax.pages import words

HERE = pathlib.Path(__file__).parent  # of base.css and plots.css
_FORMATS = (
  *(words.percent, words.ends, words.interval, words.points, words.gap, words.sign),
  *(words.chance, words.number, words.plain, words.tick),
)
# As \uXXXX these are the same JSON and can end no element; the last two end lines of
# old JavaScript.
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render(folder: pathlib.Path, name: str, /, **values: Any) -> str:
  """The template `folder`/`name`; it may include files of this folder too.

  Raises:
    jinja2.UndefinedError: a name that `values` lacks.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader([folder, HERE]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {one.__name__: one for one in _FORMATS}
  return environment.get_template(name).render(**values).strip() + "\n"


def data(value: Any) -> markupsafe.Markup:
  """JSON to be put inside a <script type="application/json">, whatever it holds."""
  text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
  return markupsafe.Markup(text.translate(_UNSAFE))
