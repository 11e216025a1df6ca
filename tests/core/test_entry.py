"""Recipes on the command line: what is set, what is refused, what --help says."""

import sys

import jax
import pytest
from ml_collections import ConfigDict

from stepaudio_jax.core import entry, errors

RECIPE = '''"""A toy. It trains nothing.

More of it.
"""
from ml_collections import ConfigDict
from stepaudio_jax.core import recipe

def get_config(arg=""):
  arg = recipe.parse(arg, size="tiny", smoke=False)
  return ConfigDict({
    "size": arg.size, "steps": 2 if arg.smoke else 9, "on": True,
    "parts": ("a", "b"), "none": (), "optim": {"lr": 1e-3},
  })
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "toy.py").write_text(RECIPE)
  monkeypatch.chdir(tmp_path)


def test_a_recipe_may_import_its_neighbour_whatever_the_folder(tmp_path, monkeypatch):
  (tmp_path / "house" / "recipes").mkdir(parents=True)
  (tmp_path / "house" / "recipes" / "toy.py").write_text(RECIPE)
  neighbour = "from recipes import toy\n\nget_config = toy.get_config\n"
  (tmp_path / "house" / "recipes" / "other.py").write_text(neighbour)
  monkeypatch.chdir(tmp_path)
  before = list(sys.path)
  config, _ = ran("--workdir", "w", "--config", "house/recipes/other.py:size=small")
  assert config.size == "small"
  assert sys.path == before


def ran(*argv):
  """(config, workdir) that the command was called with."""
  calls = []
  entry.run_recipe("toy", "Toys.", lambda *call: calls.append(call), argv)
  (call,) = calls
  return call


def refused(capsys, *argv):
  """The message of a command that must fail before its work, with status 2."""
  with pytest.raises(SystemExit) as stop:
    entry.run_recipe("toy", "Toys.", lambda *_: pytest.fail("it ran"), argv)
  assert stop.value.code == 2
  return capsys.readouterr().err


RUN = ("--workdir", "w", "--config", "configs/toy.py")


def test_values_are_set_in_the_type_of_the_recipes_own(toy):
  config, workdir = ran(
    "--config.optim.lr=1",
    *("--config.steps", "-3"),
    "--config.on=false",
    "--config.parts=('c',)",
    "--config.none=d,e",
    *("--config", "configs/toy.py:size=small", "--workdir=w=d"),
  )
  wanted = {"size": "small", "steps": -3, "on": False, "optim": {"lr": 1.0}}
  wanted |= {"parts": ("c",), "none": ("d", "e")}
  assert (config.to_dict(), workdir) == (wanted, "w=d")
  assert isinstance(config.optim.lr, float)
  assert ran(*RUN, "--config.parts=x,y")[0].parts == ("x", "y")
  assert ran(*RUN, "--config.parts=")[0].parts == ()
  for text in ("16,2.5", "(16, 2.5)"):  # nothing there to go by
    assert ran(*RUN, f"--config.none={text}")[0].none == (16, 2.5)
  assert ran(*RUN, "--config.on=False")[0].on is False
  assert ran(*RUN, "--config.on=True")[0].on is True


@pytest.mark.parametrize(
  ("argv", "wanted"),
  [
    (
      [*RUN, "--config.optim.lrr=1"],
      "unknown key 'optim.lrr' (did you mean 'optim.lr'?); the keys are",
    ),
    (
      [*RUN, "--config.optim.lrr=1"],
      "the keys are ['none', 'on', 'optim.lr', 'parts',",
    ),
    ([*RUN, "--config.optim=1"], "unknown key 'optim' (did you mean 'optim.lr'?)"),
    ([*RUN, "--config.steps=many"], "--config.steps=many: invalid literal for int()"),
    ([*RUN, "--config.on=yes"], "'yes' is not true or false"),
    ([*RUN, "--config.parts=('a'"], "--config.parts=('a': '(' was never closed"),
    ([*RUN, "--config.steps"], "--config.steps has no value"),
    ([*RUN, "stray"], "unrecognized arguments: stray"),
    ([*RUN, "--nonsense=1"], "unrecognized arguments: --nonsense=1"),
    ([*RUN, "--verbosity=loud"], "choose from 'debug', 'info', 'warning', 'error'"),
    (RUN[:2], "--config must be given"),
    ([], "--config and --workdir must be given"),
    (
      ["--workdir", "w", "--config", "configs/tony.py"],
      "there is no recipe 'configs/tony.py'; the choices are ['configs/toy.py']",
    ),
    (["--workdir", "w", "--config", "toy.py"], "the choices are []"),
    (
      ["--workdir", "w", "--config", "configs/toy.py:sise=small"],
      "unknown argument 'sise'; the choices are ['size', 'smoke']",
    ),
  ],
)
def test_what_is_wrong_is_told_with_the_choices(toy, capsys, argv, wanted):
  message = refused(capsys, *argv)
  assert wanted in message
  assert "Traceback" not in message


def test_help_names_the_recipes_and_of_one_the_keys(toy, capsys):
  never = pytest.fail
  entry.run_recipe("toy", "Toys.", never, ["--help"])
  shown = capsys.readouterr().out
  assert "--workdir DIR" in shown
  assert "configs/toy.py  A toy. It trains nothing.\n" in shown
  entry.run_recipe("toy", "Toys.", never, ["-h", "--config", "configs/toy.py:smoke"])
  shown = capsys.readouterr().out
  assert "More of it." in shown
  assert "configs/toy.py:size=tiny,smoke=False\n" in shown
  assert "  --config.optim.lr=0.001\n" in shown
  assert "  --config.steps=2\n" in shown
  assert "  --config.parts=a,b\n" in shown


@pytest.mark.parametrize(
  "error", [ValueError("bad size"), FileNotFoundError("bad file")]
)
def test_an_error_is_one_line_or_a_traceback(toy, capsys, monkeypatch, error):
  def fails(config, workdir):
    raise error

  with pytest.raises(SystemExit) as stop:
    entry.run_recipe("toy", "Toys.", fails, RUN)
  assert stop.value.code == 2
  assert capsys.readouterr().err == f"toy: {error}\n"
  monkeypatch.setenv(errors.TRACEBACK, "1")
  with pytest.raises(type(error)):
    entry.run_recipe("toy", "Toys.", fails, RUN)


def test_a_mistake_of_ours_stays_a_traceback(toy):
  def fails(config, workdir):
    raise KeyError("ours")

  with pytest.raises(KeyError):
    entry.run_recipe("toy", "Toys.", fails, RUN)


def test_a_cache_that_was_chosen_stays(monkeypatch):
  before = jax.config.jax_compilation_cache_dir
  try:
    jax.config.update("jax_compilation_cache_dir", None)
    entry.compilation_cache("one")
    assert jax.config.jax_compilation_cache_dir == "one"
    entry.compilation_cache("two")
    assert jax.config.jax_compilation_cache_dir == "one"
  finally:
    jax.config.update("jax_compilation_cache_dir", before)


def test_an_override_in_place():
  config = ConfigDict({"a": {"b": 1}})
  entry.override(config, "a.b", "5")
  assert config.a.b == 5
