"""Labels that are not there: what is left still trains, what nobody judged stays."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from stepaudio_jax import train, workdirs
from stepaudio_jax.core import tree
from tests import stages, test_reward_model
from tests.test_reward_model import recipe_of, rows_of

little_model, start = test_reward_model.little_model, test_reward_model.start
NOBODYS = 1  # the dimension without a single label


def blanked(batch):
  label, score = batch.label_BJC.copy(), batch.score_B2JC.copy()
  label[..., NOBODYS], score[..., NOBODYS] = np.nan, np.nan
  return dataclasses.replace(batch, label_BJC=label, score_B2JC=score)


@pytest.mark.parametrize("packed", [False, True, "prompts"])
def test_a_dimension_without_labels_gets_exactly_no_gradient(packed):
  """All three losses have a weight, centring too."""
  stage = stages.reward_model(packed)
  batch = jax.tree.map(np.asarray, blanked(stage.batch))

  def total(rewards):
    params = stage.params | {"rewards": rewards}
    return stage.loss_fn(params, batch, jax.random.key(0))[0]

  found = jax.jit(jax.grad(total))(stage.params["rewards"])
  for name, leaf in tree.named_leaves(found):
    by_dimension = np.abs(np.asarray(leaf)).reshape(-1, 3).max(axis=0)
    assert by_dimension[NOBODYS] == 0.0, name
    assert by_dimension[[0, 2]].all(), name


def without_most(path, share=0.6):
  """The file with that share of its labels removed, and nobody's coherence."""
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  labels = []
  for row in rows:
    row["dims"] = {"naturalness": int(np.sign(row["overall"])), "coherence": None}
    labels += [row["dims"], *row["scores"].values()]
  order = np.random.default_rng(0).permutation(len(labels))
  for place in order[: round(share * len(labels))]:
    del labels[place]["naturalness"]
  return "".join(json.dumps(row) + "\n" for row in rows)


def test_two_labels_of_five_still_train_and_nobodys_head_stays_as_it_was(
  start, tmp_path
):
  path = test_reward_model.write_preferences(tmp_path, pairs=24)
  path.write_text(without_most(path))
  c = recipe_of(start, steps=21, **{"optim.lr": 5e-3, "optim.weight_decay": 0.0})
  c.dimensions, c.dims_on_thought = ("naturalness", "coherence"), ()
  c.data.options.preference.path = str(path)
  c.microbatches, c.checkpoint.keep = 1, 7
  train.run(c, tmp_path / "rm")
  loss = [row["train/loss"] for row in rows_of(tmp_path / "rm")]
  assert np.isfinite(loss).all()
  assert np.mean(loss[-5:]) < 0.5 * np.mean(loss[:5])
  before, after = (
    workdirs.load_reward_model(tmp_path / "rm" / "checkpoints" / step).params["rewards"]
    for step in ("3", "21")
  )
  for (name, late), (_, early) in zip(
    tree.named_leaves(after), tree.named_leaves(before), strict=True
  ):
    moved = np.abs(late - early).reshape(-1, 2).max(axis=0)
    assert (moved > 0).tolist() == [True, False], name
