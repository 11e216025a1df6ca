"""Keys that came later: each is one of a recipe, and off where recipes leave it so."""

import pytest

from configs import dpo, judge, mgrd, midtrain, prealign, reward_model, rlhf, rlvr, sft
from stepaudio_jax.core import added, recipe

RECIPES = (dpo, judge, mgrd, midtrain, prealign, reward_model, rlhf, rlvr, sft)


def flats():
  return [recipe.flat(module.get_config("")) for module in RECIPES]


def test_every_key_of_the_table_is_one_of_a_recipe():
  known = {key for flat in flats() for key in flat}
  assert {*added.OFF} <= known
  assert {*added.UNREAD.values()} <= {*added.OFF}
  for start in added.UNREAD:
    assert any(key.startswith(start) for key in known), start


def test_the_tiny_recipes_leave_them_off():
  """So a run of one of these goes on after a key was added; SFT always packed."""
  listed = {*added.OFF, "asking.timeout_s", "kl.horizon", "rewards.turns"}
  listed -= {"data.pack"}
  for flat in flats():
    for key in listed & {*flat}:
      assert added.off(key, flat), key


@pytest.mark.parametrize(
  ("key", "values", "wanted"),
  [
    ("sampling.slots", {"sampling.slots": 0}, True),
    ("sampling.slots", {"sampling.slots": 4}, False),
    ("adapters.alpha", {"adapters.alpha": 3.0, "adapters.rank": 0}, True),
    ("adapters.alpha", {"adapters.alpha": 3.0, "adapters.rank": 8}, False),
    ("adapters.alpha", {"adapters.alpha": 3.0}, False),
    ("rewards.preference.mode", {"rewards.preference.mode": "group"}, False),
    # Its default was another thing than what was done before.
    ("correction.kind", {"correction.kind": "tis"}, False),
  ],
)
def test_what_is_off(key, values, wanted):
  assert added.off(key, values) is wanted
