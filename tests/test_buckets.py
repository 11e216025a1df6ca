"""A run whose every path is gs://, in a bucket that this process serves itself."""

import pytest
from etils import epath

from stepaudio_jax import logs, train, workdirs
from stepaudio_jax.core import files
from stepaudio_jax.models import sizes
from tests import bucket, child, kill, test_checkpoint, tones


@pytest.fixture
def gs(monkeypatch):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
  with bucket.served(monkeypatch) as folder:
    yield epath.Path(folder)


def test_checkpoints_in_a_bucket_are_kept_restored_and_set_aside(gs, caplog):
  folder = gs / "checkpoints"
  test_checkpoint.written(gs)
  assert test_checkpoint.names(folder) == ["2", "3"]
  test_checkpoint.assert_is(test_checkpoint.restored(gs)[0], 3)
  test_checkpoint.largest(folder / "3").unlink()
  test_checkpoint.assert_is(test_checkpoint.restored(gs)[0], 2)
  assert "is missing); it is set aside" in caplog.text
  assert test_checkpoint.names(folder) == ["2", "3.damaged"]
  (folder / "2" / "commit_success.txt").unlink()  # killed while it was written
  assert test_checkpoint.opened(gs).latest() is None
  assert test_checkpoint.names(folder) == ["3.damaged"]


def test_a_run_in_a_bucket_is_that_on_a_disk_and_resumes(gs, tmp_path, monkeypatch):
  world = child.make_world(tmp_path / "world")
  for path in world.rglob("*"):
    if path.is_file():
      (gs / "world" / path.relative_to(world)).write_bytes(path.read_bytes())
  c = child.supervised(world)
  c.total_steps = 2
  train.run(c, tmp_path / "run")
  c = child.supervised(gs / "world")
  for steps in (1, 2):
    c.total_steps = steps
    train.run(c, gs / "run")
  assert kill.differences("sft", gs / "run", tmp_path / "run") == []
  workdirs.load_model(gs / "run")
  assert {path.name for path in (gs / "run").iterdir()} == {
    *("checkpoints", "config.json", "manifest.json", "metrics.jsonl", "model.json"),
    "tokenizer",
  }


def test_a_journal_in_a_bucket_is_whole_when_it_is_flushed(gs, monkeypatch):
  journal = logs.Journal(gs / "rows.jsonl", start_step=0)
  journal.write([{"step": 1}])
  assert logs.read_metrics(gs / "rows.jsonl") == []
  journal.flush()
  assert logs.read_metrics(gs / "rows.jsonl") == [{"step": 1}]
  with monkeypatch.context() as patch:
    patch.setattr(logs, "_REWRITE_S", -1.0)  # long ago
    journal.write([{"step": 2}])
  assert logs.read_metrics(gs / "rows.jsonl") == [{"step": 1}, {"step": 2}]
  journal = logs.Journal(gs / "rows.jsonl", start_step=1)
  journal.write([{"step": 3}])
  journal.close()
  assert logs.read_metrics(gs / "rows.jsonl") == [{"step": 1}, {"step": 3}]


def test_a_place_in_a_bucket_is_not_made_one_of_the_disk(gs):
  assert str(files.absolute(gs / "run")) == "gs://bucket/folder/run"
  assert files.absolute("run").is_absolute()
