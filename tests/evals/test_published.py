"""The published table: as published, its means, and the columns benchmarks name."""

import importlib
import json
import pathlib
import runpy
import statistics

import pytest
import setuptools

from stepaudio_jax import evals, evaluate
from tests.evals import rows as rows_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = json.loads(
  (pathlib.Path(evals.__file__).parent / "parts/published.json").read_text("utf-8")
)


def test_the_numbers_as_published():
  given = rows_lib.shared("published_r15_table.json")
  assert given["rows"] == TABLE["rows"]
  longer = {"Big Bench": "Big Bench Audio"}
  assert [longer.get(one, one) for one in given["columns"]] == TABLE["columns"]


def test_the_first_column_is_the_mean_of_the_others():
  for model, (mean, *others) in TABLE["rows"].items():
    assert len(others) == 8
    assert mean == pytest.approx(statistics.mean(others), abs=0.006), model


def test_each_column_belongs_to_one_benchmark():
  names = evaluate.benchmark_names()
  modules = [importlib.import_module(f"stepaudio_jax.evals.{name}") for name in names]
  columns = [getattr(module, "COLUMN", None) for module in modules]
  named = [column for column in columns if column is not None]
  assert sorted(named) == sorted(TABLE["columns"][1:])


def test_an_installed_package_has_the_table(monkeypatch):
  given = {}
  monkeypatch.setattr(setuptools, "setup", lambda **keywords: given.update(keywords))
  runpy.run_path(str(ROOT / "setup.py"))
  assert given["package_data"]["stepaudio_jax.evals.parts"] == ["*.json"]
