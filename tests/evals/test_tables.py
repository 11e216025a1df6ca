"""What the pages of benchmarks share."""

import io
import warnings

import pytest
from matplotlib.figure import Figure

from stepaudio_jax.evals.parts import tables


def test_settings_are_told_in_words():
  judge = {"kind": "endpoint", "templates": ["a1", "b2"], "key": None}
  settings = {"top_k": None, "temperature": 0.0, "controls": ("silence", "flat")}
  settings |= {"budgets": (), "rollouts": "", "thinking": False, "judge": judge}
  told = "temperature 0.0, controls silence flat, thinking False"
  assert tables.told(settings) == f"{told}, judge (kind endpoint, templates a1 b2)"


def plot():
  figure = Figure(figsize=(1, 1))
  figure.text(0, 0, "\U00012000\U00012001")  # cuneiform
  return figure


def test_letters_that_no_font_has_are_told_once(caplog):
  file = io.BytesIO()
  tables.png(plot, file)
  assert file.getvalue().startswith(b"\x89PNG")
  (line,) = caplog.messages
  assert "lacks letters" in line
  assert tables.CHINESE[0] in line


def test_other_warnings_of_a_plot_stay():
  def careless():
    warnings.warn("too many bars", UserWarning, stacklevel=1)
    return plot()

  with pytest.warns(UserWarning, match="too many bars"):
    tables.png(careless, io.BytesIO())
