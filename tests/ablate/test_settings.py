"""The recipe: what it runs, and what it refuses before anything runs."""

import json

import pytest

from configs import ablate
from stepaudio_jax import logs, workdirs
from stepaudio_jax.ablate import arms, command, jobs, questions, settings
from stepaudio_jax.core import recipe

DIMENSIONS = ("correctness", "naturalness", "emotional_continuity", "instruction")


@pytest.fixture(autouse=True)
def reward_model(monkeypatch):
  """Of four dimensions, and no more than its description; nothing may be run."""
  monkeypatch.setattr(jobs, "run", lambda *_, **__: pytest.fail("a run began"))
  has = {"dimensions": [*DIMENSIONS]}
  monkeypatch.setattr(workdirs, "reward_dimensions", lambda folder: has)


@pytest.mark.parametrize(
  ("name", "weights", "how"),
  [
    ("all", {"a": 2.0, "a_x": 1.0}, None),
    ("without_a", {"a": 0.0, "a_x": 1.0}, None),
    ("only_a", {"a": 2.0, "a_x": 0.0}, None),
    ("a_x0.5", {"a": 1.0, "a_x": 1.0}, None),
    ("a_x_x3", {"a": 2.0, "a_x": 3.0}, None),
    ("normalisation_gdpo", {"a": 2.0, "a_x": 1.0}, "gdpo"),
  ],
)
def test_questions_by_name(name, weights, how):
  found = questions.question(name, {"a": 2.0, "a_x": 1.0}, ("sum", "gdpo"))
  assert found == questions.Question(name, weights, how)


@pytest.mark.parametrize(
  "name", ["without_b", "a_x-1", "a_xnan", "a", "normalisation_b"]
)
def test_an_unknown_question_lists_the_choices(name):
  with pytest.raises(ValueError, match=rf"'{name}'.*without_D.*\['a', 'c'\].*'gdpo'"):
    questions.question(name, {"a": 2.0, "c": 1.0}, ("sum", "gdpo"))


def test_a_question_must_leave_something():
  with pytest.raises(ValueError, match="leaves nothing of the reward"):
    questions.question("without_a", {"a": 2.0, "c": 0.0}, ())


def test_the_card_makes_five_arms_of_three_seeds(tmp_path):
  c = settings.checked(ablate.get_config(), tmp_path)
  asked = settings.trained(c, tmp_path)
  assert [one.name for one in asked] == ["all", *(f"without_{n}" for n in DIMENSIONS)]
  made = arms.arms(c, tmp_path, asked)
  assert len(made) == 15
  assert [arm.seed for arm in made[:6]] == [0, 0, 0, 0, 0, 1]
  one = next(arm for arm in made if arm.name == "without_naturalness-seed-2")
  run = arms.config(c, one)
  assert run.rewards.learned.to_dict() == {
    "acoustic_grounding": 0.0,  # of base, logged alone
    "coherence": 0.0,
    "correctness": 2.0,
    "emotional_continuity": 1.0,
    "instruction": 1.0,
    "naturalness": 0.0,
  }
  assert (run.seed, run.correction.kind, run.init) == (2, "none", "runs/sft")
  assert run.data.cache == str(tmp_path / "cache")
  assert run.algorithm.normalisation == "sum"
  job = arms.job(c, tmp_path, one)
  train, gold = (task.command for task in job.tasks)
  assert train[1:6] == ("-m", "stepaudio_jax.train_rl", "--config", c.base, "--workdir")
  assert "--config.rewards.learned.naturalness=0.0" in train
  assert gold[gold.index("--checkpoint") + 1] == str(one.folder)
  assert "--no-silence" in gold


def test_arms_of_a_seed_differ_in_their_reward_alone(tmp_path):
  c = ablate.get_config()
  c.questions += ("normalisation_gdpo",)
  made = arms.arms(c, tmp_path, settings.trained(c, tmp_path))
  control = made[0].overrides
  for arm in made[1:6]:
    keys = {key for key, value in arm.overrides.items() if control.get(key) != value}
    assert keys
    assert all(k.startswith(("rewards.learned.", "algorithm.normalis")) for k in keys)


def test_a_run_that_ended_early_is_not_done(tmp_path):
  folder = tmp_path / "run"
  folder.mkdir()
  assert "interrupted" in arms._unfinished(folder, 20)
  logs.write_json(folder / "heldout.json", {"steps": [0, 7]})
  assert arms._unfinished(folder, 20) == f"{folder} ended after step 7 of 20"
  assert arms._unfinished(folder, 7) is None


def changed(c, key, value):
  *folders, last = key.split(".")
  for name in folders:
    c = c[name]
  with c.unlocked():
    c[last] = value


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("questions", ("without_charm",), r"'without_charm'.*'correctness'"),
    ("questions", ("all",), r"\['all'\] must go"),
    ("questions", ("only_correctness", "only_correctness"), "only_correctness'"),
    ("questions", (), r"offline.runs=\(\) without questions"),
    ("offline.questions", ("correctnes_x2",), r"'correctnes_x2'.*'correctness'"),
    ("seeds", (1, 1), r"seeds=\(1, 1\)"),
    ("seeds", (), r"seeds=\(\)"),
    ("weights", {"charm": 1.0}, r"\['charm'\].*learned rewards \['acoustic"),
    ("weights", {"coherence": 1.0}, r"\['coherence'\]; .*has \['correctness'"),
    ("base", "configs/sft.py", "no 'algorithm'"),
    ("base", "configs/rlhff.py", "no recipe 'configs/rlhff.py'.*rlhf.py"),
    ("overrides", ("kl.betta=1",), "did you mean 'kl.beta'"),
    ("overrides", ("kl.beta",), "'kl.beta' is not of the form KEY=VALUE"),
    ("overrides", ("minibatches=3",), "minibatches × microbatches = 3"),
    ("colour", 1, "unknown key 'colour'"),
    ("world.batch_size", 0, "world.batch_size=0"),
    ("offline.blocks", 1, r"offline.blocks=1 \(at least 2\)"),
    ("parallel", -1, "parallel=-1"),
    ("world.limit", -1, "world.limit=-1"),
    ("devices", ("0",), "parallel=2 with devices"),
    ("stage", "rlhf", "stage 'rlhf'"),
  ],
)
def test_wrong_recipes_are_refused_before_anything_runs(tmp_path, key, value, message):
  c = ablate.get_config()
  if key == "questions" and value == ("all",):
    c.offline.questions = ()
  if key == "weights":
    c.offline.questions, c.questions = (), (f"{next(iter(value))}_x2",)
  c.parallel = 2 if key == "devices" else 0
  changed(c, key, value)
  with pytest.raises((ValueError, OSError), match=message):
    command.run(c, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_start_that_is_not_there_is_named_at_once(tmp_path):
  c = ablate.get_config()
  c.init, c.world.data = str(tmp_path / "sft"), str(tmp_path)
  with pytest.raises(ValueError, match=r"there is no init=.*/sft$"):
    command.run(c, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_folder_takes_more_questions_and_no_other_reward(tmp_path):
  c = ablate.get_config()
  logs.write_json(tmp_path / "config.json", {"config": flat(c)})
  c.seeds, c.questions = (0, 1, 2, 3), (*c.questions, "only_correctness")
  c.offline.draws = 10
  logs.check_workdir(tmp_path, c, free=settings.FREE)
  c.weights.correctness = 3.0
  with pytest.raises(ValueError, match=r"weights.correctness: 2.0 → 3.0\. Use another"):
    logs.check_workdir(tmp_path, c, free=settings.FREE)


def flat(c):
  return json.loads(json.dumps(recipe.flat(c)))
