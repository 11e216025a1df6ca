"""What the command tells: what it wrote and rounded, and one line for each mistake."""

import numpy as np
import pytest

from stepaudio_jax import convert, generate
from stepaudio_jax.core import disk
from tests.hf import directories


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp("source")
  return directories.step_audio(folder / "hf", directories.tensors())


@pytest.fixture(scope="module")
def imported(source):
  convert.import_([source], source.parent / "ckpt")
  return source.parent / "ckpt"


def test_an_existing_target_is_refused_before_anything_is_read(tmp_path):
  with pytest.raises(FileExistsError, match="name a new folder"):
    convert.import_([tmp_path / "nowhere"], tmp_path)
  with pytest.raises(FileExistsError, match="name a new folder"):
    convert.export_(tmp_path / "nowhere", tmp_path)


def test_a_disk_that_is_full_is_named(source, imported, tmp_path, monkeypatch, capsys):
  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(disk.Target, "write", full)
  out = str(tmp_path / "out")
  for command in (
    ["import", "--from", str(source)],
    ["export", "--from", str(imported)],
  ):
    with pytest.raises(SystemExit) as stop:
      convert.main([*command, "--to", out])
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith(f"No space left on device: {out!r}")
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_and_where_is_said_last(source, tmp_path, capsys):
  ours, back = tmp_path / "ckpt", tmp_path / "hf"
  convert.main(["import", "--from", str(source), "--to", str(ours)])
  said = [capsys.readouterr().err.splitlines()[-1]]
  convert.main(["export", "--from", str(ours), "--to", str(back)])
  said.append(capsys.readouterr().err.splitlines()[-1])
  wanted = []
  for what, folder in (("checkpoint", ours), ("Hugging Face model", back)):
    lengths = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    where = f"wrote the {what} {folder}"
    wanted.append(f"{where} ({len(lengths)} files, {sum(lengths):,} bytes)")
  assert said == wanted


def test_a_directory_of_the_hub_is_no_checkpoint(source, capsys):
  ask = ["--prompt", "Hello", "--checkpoint", str(source)]
  out = ["export", "--to", "nowhere", "--from", str(source)]
  for main, arguments in ((generate.main, ask), (convert.main, out)):
    with pytest.raises(SystemExit) as stop:
      main(arguments)
    assert stop.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(
      f": {source} is a Hugging Face model, no checkpoint: import it first "
      f"(python -m stepaudio_jax.convert import --from {source} --to CKPT)"
    )


def test_rounding_is_said_and_is_no_failure_of_the_check(tmp_path, capsys):
  arrays = directories.tensors(np.float32)
  source = directories.step_audio(tmp_path / "hf", arrays)
  convert.main(["import", "--from", str(source), "--to", str(tmp_path / "ckpt")])
  count = sum(array.size for array in arrays.values())
  assert (
    f"the checkpoint: {count:,} parameters, {2 * count:,} bytes as bfloat16; float32 "
    "is rounded to bfloat16 (--dtype float32 rounds nothing)\n"
  ) in capsys.readouterr().err
  sides = ["--a", str(source), "--b", str(tmp_path / "ckpt")]
  convert.main(["check", "--no-logits", *sides])
  assert capsys.readouterr().out.endswith("\nequal after rounding\n")


def test_an_import_counts_what_is_not_finite(tmp_path, capsys):
  arrays = directories.tensors()
  arrays["adapter.conv.bias"][2:5] = np.inf
  arrays["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
  source = directories.step_audio(tmp_path / "hf", arrays)
  listed = "adapter.conv.bias: 3, model.layers.1.mlp.up_proj.weight: 1\n"
  for name, mesh in (("plain", []), ("mesh", ["--mesh", "fsdp=1"])):
    to = str(tmp_path / name)
    convert.main(["import", "--from", str(source), "--to", to, *mesh])
    told = capsys.readouterr().err
    line = next(line for line in told.splitlines(True) if "not finite" in line)
    names = "".join(sorted(line.split(" in ")[1].strip().split(", "), key=str))
    assert line.startswith("warning: values that are not finite (infinite or NaN) in ")
    assert names == "".join(listed.strip().split(", "))
