"""A judge's two phases from a file of preferences, and what it then is."""

import pytest
from etils import epath

from configs import judge
from stepaudio_jax import logs, train, train_rl
from stepaudio_jax.evals.parts import judging
from stepaudio_jax.judges import comparing
from stepaudio_jax.judges.comparing import Comparer, Pair
from stepaudio_jax.models import sizes
from stepaudio_jax.rollout import keys
from tests import tones


@pytest.fixture(autouse=True)
def little_model(monkeypatch):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  folder = tones.world(tmp_path_factory.mktemp("tones"))
  tones.policy(folder / "sft")
  rows = [tones.preference(k) | {"id": f"unseen-{k}"} for k in (6, 7)]
  tones.write(folder / "preferences-heldout.jsonl", rows)
  return folder


def wired(c, world):
  c.data.options.judgement.path = str(world / "preferences-{split}.jsonl")
  c.data.cache = str(world / "cache")
  return c


def test_what_the_recipe_says():
  c = keys.checked(judge.get_config("phase=rl"))
  assert dict(c.rewards.rules.audio) == {"level_error": 1.0}
  assert c.algorithm.name == "grpo"
  assert judge.get_config("").data.max_tokens == c.data.max_tokens
  assert judge.get_config("size=small").data.max_tokens == 256
  with pytest.raises(ValueError, match=r"'sft'.*\['levels', 'rl'\]"):
    judge.get_config("phase=sft")
  with pytest.raises(ValueError, match="algorithm='ppo' is of phase=rl alone"):
    judge.get_config("algorithm=ppo")


@pytest.mark.slow
def test_a_judge_learns_its_levels_and_judges(world, tmp_path, monkeypatch):
  """Six rows about pitch in both orders: learned by heart, heard, and read back."""
  c = wired(judge.get_config("smoke"), world)
  c.init, c.total_steps, c.optim.lr = str(world / "sft"), 150, 1e-2
  c.checkpoint.every_steps, c.log.every_steps = 150, 50
  judged = train.run(c, tmp_path / "judge")
  losses = [row["train/loss"] for row in logs.read_metrics(judged / "metrics.jsonl")]
  assert losses[-1] < 0.5 * losses[0]

  monkeypatch.setitem(judging.LOCAL, "max_new_tokens", 24)
  comparer = Comparer(
    judging.judge(str(judged), None, epath.Path(tmp_path / "cache")), expected=True
  )
  rows = [tones.preference(k) for k in range(6)]
  for row in rows:
    row["context"][0]["content"][0]["path"] = str(world / f"{row['id'][-1]}.wav")
  pairs = [
    Pair(row["context"], *(one["text"] for one in row["candidates"])) for row in rows
  ]
  found = comparer.both(pairs)
  # The replies are the same each time; what differs is the tone that was heard.
  assert [each.value > 0 for each in found] == [row["overall"] < 0 for row in rows]
  assert comparer.tally == comparing.Tally(12, 12, unread=0, pairs=6, disagreed=0)

  c = wired(judge.get_config("phase=rl,smoke"), world)
  c.init, c.sampling.max_new_tokens, c.total_steps = str(judged), 24, 2
  c.prompts_per_step, c.checkpoint.every_steps = 4, 2
  train_rl.run(c, tmp_path / "rl")
  rows = logs.read_metrics(tmp_path / "rl" / "metrics.jsonl")
  assert len(rows) == 2
  assert all(-1 <= row["reward/level_error/raw"] <= 0 for row in rows)
  assert rows[0]["reward/level_error/raw"] > -0.5  # it has learned to name levels
