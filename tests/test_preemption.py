"""A run that is told to stop, or whose newest checkpoint is damaged, loses nothing."""

import shutil
import signal

import pytest

from stepaudio_jax import checkpoint, preemption, steps, train
from stepaudio_jax.core import storage
from stepaudio_jax.models import sizes
from tests import child, kill, tones


@pytest.fixture(autouse=True)
def little_model(monkeypatch):
  """Recipes say size=tiny; these tests need no more than a few thousand weights."""
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  return child.make_world(tmp_path_factory.mktemp("world"))


def recipe(world):
  c = child.supervised(world)
  c.checkpoint.every_steps, c.checkpoint.keep = 2, 2
  return c


@pytest.fixture(scope="module")
def whole(world):
  """An undisturbed run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
    return train.run(recipe(world), world / "whole")


def test_sigterm_saves_after_the_step_and_a_second_one_changes_nothing(
  world, whole, tmp_path, monkeypatch, capsys
):
  """The notice comes in step 3, between checkpoints; more come while it is saved."""
  finite, wait = steps.finite, checkpoint.Checkpoints.wait

  def announced(scalars, step, ids):
    signal.raise_signal(signal.SIGTERM) if step == 3 else None
    return finite(scalars, step, ids)

  def again(*args):
    signal.raise_signal(signal.SIGTERM)
    wait(*args)

  run, before = tmp_path / "run", signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    patch.setattr(steps, "finite", announced)
    # Step 2 is saved before the notice.
    save = checkpoint.Checkpoints.save
    patch.setattr(
      checkpoint.Checkpoints,
      "save",
      lambda self, step, *rest: (
        patch.setattr(checkpoint.Checkpoints, "wait", again) if step == 3 else None,
        save(self, step, *rest),
      ),
    )
    with pytest.raises(SystemExit) as left:
      train.run(recipe(world), run)
  # The program's last steps are not hurried either.
  assert signal.signal(signal.SIGTERM, before) == signal.SIG_IGN
  assert left.value.code == 0
  said = f"SIGTERM: {run} is saved after step 3; the same command goes on"
  assert said in capsys.readouterr().err
  assert storage.step_folder(run).name == "3"
  train.run(recipe(world), run)
  assert kill.differences("sft", run, whole) == []
  assert signal.getsignal(signal.SIGTERM) == before


def test_a_notice_is_heard_in_its_block_alone():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.Notice() as notice:
    assert not notice.given(1)
    assert signal.getsignal(signal.SIGTERM) != before
  assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
  world, whole, tmp_path, caplog
):
  """Rows that came after that checkpoint are written again, once."""
  run = tmp_path / "run"
  shutil.copytree(whole, run)
  (run / "checkpoints" / "4" / "state" / "manifest.ocdbt").unlink()
  train.run(recipe(world), run)
  assert "the checkpoint of step 4 in" in caplog.text
  assert "manifest.ocdbt is missing" in caplog.text
  assert kill.differences("sft", run, whole) == []
  names = {path.name for path in (run / "checkpoints").iterdir()}
  assert names == {"2", "4", "4.damaged"}
