r"""A reward model of the quick start's, trained until its heads know their dimensions.

  python -m experiments.reward_dimensions --run runs/quickstart \
    --workdir runs/reward_dimensions [--clips 16000] [--steps 900]

RUN is a finished quick start. Its reward model has a minute; this one gets more to
learn from and longer to do so: a world of other speech (the train split alone, so the
held-out clips stay unheard), two replies of the SFT model to each of its dialogues, the
same panel of simulated raters, the same recipe from the same SFT start. Both are then
asked about the same 2,400 held-out pairs: DIR/evaluation/{long,quickstart}. Killed, the
same command goes on. --smoke takes the smoke recipe, after a quick start with --smoke.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from configs import reward_model
from experiments import behind_quickstart, preferences, quickstart
from experiments.stages import Stages
from stepaudio_jax import evaluate, train
from stepaudio_jax.core import entry, errors
from stepaudio_jax.data.world import build, prompts

SEED = 1  # of the world; the quick start's is 0
PAIRS = {"full": 2400, "smoke": 24}  # held out
CLIPS = {"full": 16_000, "smoke": 96}


def run(
  source: Path,
  workdir: Path,
  *,
  clips: int | None = None,
  steps: int,
  lr: float,
  smoke: bool = False,
) -> None:
  """Runs every stage that is not done yet.

  Args:
    clips: None takes those of CLIPS.

  Raises:
    ValueError: `source` holds no finished quick start.
  """
  clips = clips or CLIPS["smoke" if smoke else "full"]
  behind_quickstart.check(source, ("sft", "rm", "world/truth-heldout.jsonl"))
  stages = Stages(
    workdir,
    experiment="reward_dimensions",
    smoke=smoke,
    clips=clips,
    steps=steps,
    lr=lr,
  )
  entry.compilation_cache(workdir.resolve() / "xla_cache")
  world = workdir / "world"
  stages.run("speech", "Synthesise speech", lambda: speech(world, clips))
  for split, folder in (("train", world), ("heldout", source / "world")):
    stages.run(
      split,
      f"Simulated preferences, {split}",
      lambda split=split, folder=folder: asked(source, workdir, folder, split, smoke),
    )
  c = recipe(source, workdir, steps, lr, smoke)
  stages.run("rm", "Reward model", lambda: train.run(c, workdir / "rm"))
  for name, model in (("long", workdir), ("quickstart", source)):
    stages.run(
      f"evaluate_{name}",
      f"Evaluate: {name}",
      lambda name=name, model=model: evaluate.run(
        checkpoint=model / "rm",
        benchmarks=["reward_model"],
        data=workdir / "heldout",
        out=workdir / "evaluation" / name,
        cache=workdir / "cache",
      ),
    )
  print(stages.budget())


def speech(folder: Path, clips: int) -> None:
  """Other speech of the train split; the held-out dialogues are the quick start's."""
  build.build(
    folder,
    train_clips=clips,
    heldout_per_task=build.SMALLEST_HELDOUT,
    seed=SEED,
    processes=2,
    text_rows=1,
    progress=True,
  )
  prompts.write_prompts(folder, "train", quickstart.TASKS, None, SEED)


def asked(source: Path, workdir: Path, world: Path, split: str, smoke: bool) -> Path:
  """A pair for each dialogue to learn from, and the held-out ones."""
  pairs = PAIRS["smoke" if smoke else "full"]
  if split == "train":
    pairs = len(build.read_jsonl(world / "prompts-train.jsonl"))
  out = workdir / split
  return preferences.run(source, out, pairs=pairs, world=world, split=split)


def recipe(
  source: Path, workdir: Path, steps: int, lr: float, smoke: bool
) -> ConfigDict:
  c = reward_model.get_config("smoke" if smoke else "")
  c.init = str(source.resolve() / "sft")
  c.data.options.preference.path = str(workdir / "train" / "preferences-train.jsonl")
  c.data.cache = str(workdir / "cache")
  c.optim.lr = lr
  c.total_steps = c.total_steps if smoke else steps
  return c


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.reward_dimensions",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--run", required=True, type=Path, metavar="DIR", dest="source")
  add("--workdir", required=True, type=Path, metavar="DIR")
  add("--clips", type=int, metavar="N", help="default 16000, or 96")
  add("--steps", type=int, default=900, metavar="N", help="default 900")
  add("--lr", type=float, default=2e-3, metavar="X", help="default 2e-3")
  add("--smoke", action="store_true", help="a minute, for tests")
  options = vars(parser.parse_args(argv))
  with errors.readable("reward_dimensions"):
    run(**options)


if __name__ == "__main__":
  main()
