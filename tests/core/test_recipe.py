import pytest
from ml_collections import ConfigDict

from stepaudio_jax.core import recipe


def test_arguments_are_typed_by_their_defaults():
  arg = recipe.parse("size=small,steps=7,smoke", size="tiny", steps=1, smoke=False)
  assert (arg.size, arg.steps, arg.smoke) == ("small", 7, True)
  assert recipe.parse(None, size="tiny").size == "tiny"


def test_every_wrong_argument_is_named_at_once():
  with pytest.raises(ValueError, match=r"'sise'.*'size'.*'steps'.*invalid literal"):
    recipe.parse("sise=small,steps=x", size="tiny", steps=1)


def test_unknown_and_missing_keys_are_collected():
  has = ConfigDict({"optim": {"lr": 1.0, "b2": 0.9}, "mix": {"mine": 1.0}})
  wrong = (
    r"^unknown key 'optim\.b2' \(did you mean 'optim\.b1' or 'optim\.lr'\?\); "
    r"missing key 'optim\.b1'; the keys are \['optim\.b1', 'optim\.lr'\]$"
  )
  with pytest.raises(ValueError, match=wrong):
    recipe.check_keys(has, ("optim.lr", "optim.b1"), free=("mix.",))
  recipe.check_keys(has, ("optim.lr", "optim.b2"), free=("mix.",))


def test_of_many_keys_the_nearest_are_told():
  """By the whole name, by its last part, or as members of a group; else none."""
  keys = [f"{group}.{name}" for group in ("optim", "critic") for name in ("lr", "eps")]
  keys += [f"other.key_{k}" for k in range(80)] + ["batch_size"]
  assert recipe.nearest("optim.lrr", keys) == (
    " (did you mean 'optim.lr' or 'optim.eps' or 'critic.lr'?)"
  )
  assert recipe.nearest("batchsize", keys) == " (did you mean 'batch_size'?)"
  assert recipe.nearest("critic", keys) == (
    " (did you mean 'critic.lr' or 'critic.eps'?)"
  )
  assert recipe.nearest("nothing_like_it", keys) == ""
  many = [f"group_{k}.size" for k in range(9)]
  assert recipe.nearest("sise", many).count(" or ") == recipe.FEW - 1
  assert recipe.listed(keys) == "--help with --config FILE lists all 85 keys"


def test_choose_lists_the_choices():
  with pytest.raises(ValueError, match=r"unknown schedule 'sine'.*\['cosine'\]"):
    recipe.choose("schedule", "sine", {"cosine": 1})


def test_a_recipe_of_the_other_loop_is_told_whose_it_is():
  with pytest.raises(ValueError, match=r"stage 'rlvr' has no 'objective'; .*train_rl "):
    recipe.check_loop(ConfigDict({"stage": "rlvr"}), "objective", "train_rl")
  recipe.check_loop(ConfigDict({"objective": "sft"}), "objective", "train_rl")


def test_counts_below_one_are_all_named():
  has = ConfigDict({"steps": -1, "sampling": {"samples": 0}, "rows": 1})
  with pytest.raises(ValueError, match=r"^steps=-1, sampling\.samples=0: must be"):
    recipe.check_counts(has, ("steps", "sampling.samples", "rows"))


@pytest.mark.parametrize(
  "lengths", [(8, 4), (4, 4), (-1,), (4, 65), ("a", "b"), ("8",), (4.5,)]
)
def test_lengths_are_numbers_that_ascend(lengths):
  with pytest.raises(ValueError, match=r"^rows=\(.*must be lengths that ascend"):
    recipe.check_ascending("rows", lengths, 64)
  recipe.check_ascending("rows", (0, 4.5, 64), 64, whole=False)
