"""Recipes on the command line: what the training commands share."""

import argparse
import ast
import contextlib
import functools
import importlib.util
import logging
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import jax
from absl import logging as absl_logging
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax.core import errors, processes, recipe

_OVERRIDE = "--config."
_LEVELS = ("debug", "info", "warning", "error")


def compilation_cache(folder: epath.PathLike) -> None:
  """Keeps compiled programs in `folder`, unless the caller has chosen a place."""
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(folder))


def run_recipe(
  command: str,
  description: str,
  run: Callable[[ConfigDict, str], Any],
  argv: Sequence[str] | None = None,
) -> None:
  """`command --config FILE[:ARGS] --workdir DIR [--config.KEY=VALUE …]`.

  Returns once `run(config, workdir)` has; every wrong argument is an error.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  parser = _parser(command, description)
  given = overrides(argv, parser)
  args = parser.parse_args(argv)
  with errors.readable(command):
    if args.help:
      print(_help(parser, args.config))
      return
    lacking = [f"--{name}" for name in ("config", "workdir") if not vars(args)[name]]
    if lacking:
      parser.error(f"{' and '.join(lacking)} must be given")
    logging.basicConfig(format="%(levelname)s %(message)s")
    absl_logging.set_verbosity(args.verbosity)
    processes.start()
    config = recipe_of(args.config)
    for key, text in given.items():
      override(config, key, text)
    run(config, args.workdir)


def recipe_of(text: str) -> ConfigDict:
  """The config of "configs/sft.py:size=small,smoke".

  Raises:
    ValueError: no such file, or wrong arguments; the choices are listed.
  """
  path, _, arg = text.partition(":")
  return _module(path).get_config(arg)


def override(config: ConfigDict, key: str, text: str) -> None:
  """Sets `config`'s value at "optim.lr" to what `text` says, in the value's type.

  Raises:
    ValueError: an unknown key, or text of another type.
  """
  keys = recipe.flat(config)
  if key not in keys:
    near = recipe.nearest(key, keys)
    raise ValueError(f"unknown key {key!r}{near}; {recipe.listed(keys)}")
  *parents, name = key.split(".")
  place = config
  for parent in parents:
    place = place[parent]
  try:
    place[name] = _typed(text, place[name])
  except (ValueError, SyntaxError) as error:
    raise ValueError(f"{_OVERRIDE}{key}={text}: {error}") from error


def _typed(text: str, old: Any) -> Any:
  if isinstance(old, tuple | list):  # ("a", "b") or a,b
    literal = text.strip()[:1] in ("(", "[")
    items = ast.literal_eval(text) if literal else filter(None, text.split(","))
    each = functools.partial(recipe.typed, kind=type(old[0])) if old else _guessed
    return type(old)(each(str(item)) for item in items)
  return recipe.typed(text, type(old))


def _guessed(text: str) -> Any:
  """An item where the recipe has none to go by: a number, or the text itself."""
  for kind in (int, float):
    with contextlib.suppress(ValueError):
      return kind(text)
  return text


def _parser(command: str, description: str) -> argparse.ArgumentParser:
  out = argparse.ArgumentParser(
    prog=f"python -m stepaudio_jax.{command}",
    usage="%(prog)s --config FILE[:ARGS] --workdir DIR [--config.KEY=VALUE ...]",
    description=description,
    epilog=f"{errors.TRACEBACK}=1 in the environment shows where an error was raised.",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
    add_help=False,
  )
  add = out.add_argument
  add("-h", "--help", action="store_true", help="with --config: its arguments and keys")
  add("--config", metavar="FILE[:ARGS]", help="a recipe, such as configs/sft.py:smoke")
  add("--workdir", metavar="DIR", help="folder of the run; may be gs://")
  add("--config.KEY", metavar="VALUE", help="sets a value of the recipe")
  add("--verbosity", choices=_LEVELS, default="warning", help="of the log")
  return out


def overrides(argv: list[str], parser: argparse.ArgumentParser) -> dict[str, str]:
  """Takes --config.KEY=VALUE and --config.KEY VALUE out of `argv`."""
  found, left = {}, iter(list(argv))
  argv.clear()
  for item in left:
    key, given, text = item.removeprefix(_OVERRIDE).partition("=")
    if not item.startswith(_OVERRIDE):
      argv.append(item)
    elif given:
      found[key] = text
    else:
      found[key] = next(left, None)
      if found[key] is None:
        parser.error(f"{item} has no value")
  return found


def _help(parser: argparse.ArgumentParser, text: str | None) -> str:
  """The command's; with a recipe that recipe's arguments, keys and values."""
  if text is None:
    recipes = [
      f"  {path}  {_first_line(path)}"
      for path in sorted(pathlib.Path().glob("configs/*"))
      if path.suffix == ".py"
    ]
    return "\n".join([parser.format_help(), "recipes here:", *recipes])
  path, _, arg = text.partition(":")
  module = _module(path)
  flat = recipe.flat(module.get_config(arg))
  return "\n".join(
    [
      module.__doc__ or "",
      f"arguments, with their defaults: {path}:{','.join(_arguments(module))}",
      "keys and their values:",
      *(f"  {_OVERRIDE}{key}={_shown(value)}" for key, value in flat.items()),
    ]
  )


def _shown(value: Any) -> str:
  return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _arguments(module: ModuleType) -> list[str]:
  """Those that the recipe takes, with their defaults."""
  try:
    module.get_config("?")
  except recipe.ArgumentError as error:
    return [f"{name}={value}" for name, value in error.defaults.items()]
  return []


def _first_line(path: pathlib.Path) -> str:
  doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
  return doc.partition("\n")[0]


def _module(path: str) -> ModuleType:
  file = pathlib.Path(path)
  if not file.is_file():
    beside = file.parent if file.parent.is_dir() else pathlib.Path("configs")
    found = sorted(str(other) for other in beside.glob("*.py"))
    raise ValueError(f"there is no recipe {path!r}; the choices are {found}")
  spec = importlib.util.spec_from_file_location(f"recipe_{file.stem}", file)
  if spec is None:
    raise ValueError(f"{path!r} is no Python file")
  module = importlib.util.module_from_spec(spec)
  with _importable(file.resolve().parents[1]):
    spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ValueError(f"{path!r} is no recipe: it has no get_config")
  return module


@contextlib.contextmanager
def _importable(folder: pathlib.Path) -> Iterator[None]:
  """A recipe may import its neighbours ("from configs import …") from any folder."""
  sys.path.insert(0, str(folder))
  try:
    yield
  finally:
    sys.path.remove(str(folder))
