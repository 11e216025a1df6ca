import importlib.util
import json
import pathlib
import subprocess
import sys
import types

import pytest

from stepaudio_jax.core import entry
from stepaudio_jax.fit import __main__ as fit
from stepaudio_jax.fit import command, programs, report
from stepaudio_jax.pricing import memory, topology
from tests.fit import slices

SFT = ["--config", "configs/sft.py"]
HERE = pathlib.Path(__file__).resolve().parents[2]


def refused(capsys, *argv: str) -> str:
  with pytest.raises(SystemExit) as stopped:
    fit.main([*SFT, *argv])
  assert stopped.value.code == 2
  return capsys.readouterr().err


@pytest.fixture
def no_libtpu(monkeypatch):
  found = importlib.util.find_spec

  def find(name, *rest):
    return None if name == "libtpu" else found(name, *rest)

  monkeypatch.setattr(importlib.util, "find_spec", find)


def test_a_missing_compiler_is_one_line_with_the_command_that_mends_it(
  capsys, no_libtpu
):
  error = refused(capsys, "--topology", "v5e:4x4")
  assert error.count("\n") == 1
  assert 'pip install -e ".[tpu]"' in error


@pytest.mark.parametrize(
  ("name", "what"),
  [
    ("v9:4x4", r"a chip of ['v5e', 'v5p', 'v6e']"),
    ("v5p:4x4", "slices of v5p have 3 axes"),
    ("v5e:4xfour", "CHIP:AxB"),
    ("v5e", "CHIP:AxB"),
  ],
)
def test_a_wrong_slice_lists_examples(capsys, name, what):
  error = refused(capsys, "--topology", name)
  assert what in error
  assert all(example in error for example in topology.EXAMPLES)


def test_a_wrong_program_and_key_list_the_choices(capsys):
  error = refused(capsys, "--topology", "v5e:4x4", "--program", "decode")
  assert "'decode step'" in error
  error = refused(capsys, "--topology", "v5e:4x4", "--config.batchsize=3")
  assert "did you mean 'batch_size'" in error


def test_a_mesh_that_does_not_fit_the_slice(capsys, monkeypatch):
  monkeypatch.setattr(topology, "topology", lambda name: slices.here())
  error = refused(capsys, "--topology", "v5e:4x4", "--config.mesh.tensor=3")
  assert "does not fit 1 devices" in error
  error = refused(capsys, "--topology", "v5e:4x4", "--sampling-mesh", "model=2")
  assert "the choices are data=N" in error


@pytest.mark.parametrize(
  ("name", "wrap"),
  [
    ("v5e:4x4", (False, False)),
    ("v6e:16x16", (True, True)),
    ("v6e:8x16", (False, True)),
    ("v5p:4x4x8", (True, True, True)),
    ("v5p:2x2x4", (False, False, False)),
  ],
)
def test_which_axes_of_a_slice_close_to_rings(name, wrap):
  assert topology.slice_of(name).wrap == wrap


def test_what_the_compiler_says_when_memory_does_not_suffice():
  for message, used in (
    ("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exc", 20.5),
    (
      "Ran out of memory on HBM, the total (128.00G) exceeds available HBM (31.25G)",
      128,
    ),
  ):
    found = memory.exceeded(f"RESOURCE_EXHAUSTED: {message}", 10 * 2**30)
    assert found.peak == used * 2**30
    assert not found.fits
  assert memory.exceeded("INTERNAL: something else", 10) is None


def test_memory_by_kind_and_its_peak():
  analysis = types.SimpleNamespace(
    argument_size_in_bytes=100,
    output_size_in_bytes=80,
    temp_size_in_bytes=50,
    alias_size_in_bytes=70,
    generated_code_size_in_bytes=5,
    host_temp_size_in_bytes=1000,
    host_argument_size_in_bytes=1,
    peak_memory_in_bytes=150,
  )
  found = memory.of(analysis, 155)
  assert found == memory.Memory(100, 80, 50, 70, 5, 1001, limit=155, peak=155)
  assert found.fits
  assert not memory.of(analysis, 154).fits


ROW = {
  "program": "decode step",
  "size": "tiny",
  "topology": "v5e:4x4",
  "mesh": {"data": 4, "tensor": 4},
  "tokens": 8,
  "fits": True,
  "hbm_peak_bytes": 3 * 2**30,
  "hbm_limit_bytes": 16 * 2**30,
  "hbm_bytes_by_kind": {"arguments": 2**30, "temporaries": 2 * 2**30},
  "compile_s": 12.3,
  "versions": {"jax": "1", "libtpu": "2"},
  "seconds_floor": 0.5,
  "seconds_expected": 1.0,
  "seconds_pessimistic": 2.0,
  "mfu_expected": 0.25,
  "unpriced_share": 0.125,
  "unpriced": ["strange.7"],
  "collectives_exposed_s": 0.25,
  "collectives_overlapped_s": 0.125,
  "seconds_by_kind": {"matmul": 1.0},
  "loops": [{"name": "while.1", "rounds": 8, "may_end_earlier": True}],
  "dearest": [
    {
      "operation": "fusion.1",
      "kind": "matmul",
      "from": "jit(f)/a|b",
      "runs": 8,
      "share": 0.5,
      "of_peak": 0.75,
      "hidden_s": None,
    }
  ],
  "streamed_bytes": 2**30,
  "expected_over_streamed": 1.5,
}
PRICES = ("seconds_floor", "seconds_expected", "seconds_pessimistic", "mfu_expected")


def test_the_report_a_person_reads(tmp_path):
  too_large = ROW | {"program": "large", "fits": False} | dict.fromkeys(PRICES)
  report.write(tmp_path, "tiny sft v5e:4x4", [ROW, too_large], ["A note."])
  text = (tmp_path / "tiny-sft-v5e-4x4.md").read_text()
  line = "| decode step | data 4, tensor 4 | 3.0 | yes | 0.5 | 1 | 2 | 25.0% "
  assert f"{line}| 0.25 + 0.125 | 12.50% | 12 |" in text
  assert "| large | data 4, tensor 4 | 3.0 | **no** | – |" in text
  assert "**Not priced**: strange.7." in text
  assert "1.50 times as long" in text
  assert "while.1 at most 8" in text
  assert "| 50.0% | 75% | 8 | matmul | fusion.1 | `jit(f)/a¦b` |" in text
  assert "A note." in text
  assert "*predicted*" in text
  rows = json.loads((tmp_path / "tiny-sft-v5e-4x4.json").read_text())
  assert rows == [ROW, too_large]


def test_what_was_asked_of_the_recipe_stands_in_the_report(monkeypatch, capsys):
  monkeypatch.setattr(topology, "topology", lambda name: slices.here())
  monkeypatch.setattr(command.rows, "row", lambda *_: dict(ROW))
  short = ("--config.data.max_tokens=64", "--config.microbatches=4")
  fit.main([*SFT, "--topology", "here", "--program", "decode step", *short])
  note = "The recipe: microbatches 4, remat none, head_chunks 1, attention auto, "
  note += "dtype float32, offload nothing, max_tokens 64, prompts 12, copies 1, "
  assert f"{note}new_tokens {command.REPLY_TOKENS}." in capsys.readouterr().out


def test_a_recipe_that_only_hears_has_no_length():
  job = slices.job("configs/prealign.py:phase=hear")
  assert "max_tokens" not in command.settings(job)


def test_search_tries_all_and_marks_the_best_that_fits(monkeypatch, tmp_path, capsys):
  """Seconds by a made-up rule: the fastest of all does not fit."""
  monkeypatch.setattr(topology, "topology", lambda name: slices.here())
  monkeypatch.setattr(command.calibration, "row", lambda folder: {})
  monkeypatch.setattr(command.calibration, "note", lambda made: "calibrated")

  def made_up(program, where, size):
    batch = program.arguments[1]
    assert batch.token_BT.shape == (4, 64)
    seconds = made_up.calls = made_up.calls + 1
    return ROW | {"seconds_expected": float(seconds), "fits": seconds > 2}

  made_up.calls = 0
  monkeypatch.setattr(command.rows, "row", made_up)
  c = slices.job(batch_size="4", data__max_tokens="64").c
  found = command.search(c, tmp_path, topology_name="here")
  # Micro-batches 1, 2 and 4 for each policy; the config stays as it was.
  assert [row["microbatches"] for row in found[:3]] == [1, 2, 4]
  assert len(found) == 3 * len({row["remat"] for row in found}) >= 12
  assert [row["seconds_expected"] for row in found if row["best"]] == [3.0]
  assert c.microbatches == 1
  assert "microbatches 4 **best**" in capsys.readouterr().out


@pytest.mark.slow
def test_a_tiny_recipe_for_a_real_slice(tmp_path):
  """The compiler itself; in a process of its own, for it locks its library."""
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip('libtpu is not installed: pip install -e ".[tpu]"')
  code = (
    "import sys; from stepaudio_jax.fit import __main__, calibration; "
    "calibration.row = lambda folder: {}; calibration.note = lambda made: ''; "
    "__main__.main(sys.argv[1:])"
  )
  argv = [*SFT, "--topology", "v5e:2x2", "--out", str(tmp_path)]
  argv += ["--config.attention=plain"]  # the kernel's heads are 128 wide
  run = subprocess.run(
    [sys.executable, "-c", code, *argv],
    cwd=HERE,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  (file,) = tmp_path.glob("*.json")
  rows = json.loads(file.read_text())
  c = entry.recipe_of("configs/sft.py")
  assert [row["program"] for row in rows] == programs.asked(c)
  for row in rows:
    times = [row[f"seconds_{name}"] for name in ("floor", "expected", "pessimistic")]
    assert 0 < times[0] <= times[1] <= times[2], row["program"]
    assert row["unpriced_share"] == 0, row["unpriced"]
    assert row["fits"]
    assert 0 < row["mfu_expected"] < 1
    products = row["flops_per_chip"] / row["model_flops_per_chip"]
    assert 0.9 < products < 2, row["program"]
