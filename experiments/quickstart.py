"""The whole recipe at tiny size, on one machine, in minutes.

  python -m experiments.quickstart --workdir runs/quickstart [--smoke]

Speech is synthesised; a tiny audio model learns to hear (pre-alignment), to speak
about what it hears and to converse (SFT). Simulated raters prefer some replies to
others, a reward model of several dimensions learns from them, and from the one SFT
start three arms go on with the same prompts and budget: RLVR, RLVR with a KL, and RLHF
with that KL. All are evaluated on the same held-out dialogues, exported to Hugging Face
format, and DIR/report.html tells the story. Killed anywhere, the same command goes on
where it stopped.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from configs import prealign, reward_model, rlhf, rlvr, sft
from experiments import report
from experiments.stages import Stages
from stepaudio_jax import evaluate, generate, train, train_rl, workdirs
from stepaudio_jax.core import threads
from stepaudio_jax.data.world import build, preferences, prompts, raters
from stepaudio_jax.hf import export
from stepaudio_jax.text import tokenizer as tokenizers

# Tasks that the SFT start answers neither rarely nor nearly always: prompts of RL.
TASKS = ("pitch", "rate", "emotion")
ARMS = {
  "rlvr": "RLVR",
  "rlvr_kl": "RLVR with the same KL",
  "rlhf": "RLHF",
}
POLICIES = ("sft", *ARMS)
ASKED = {
  "full": {"train": 1600, "heldout": 360},
  "smoke": {"train": 12, "heldout": 12},
}
RATERS = 6  # all of them see every pair
TEMPERATURES = (0.7, 1.1)  # of the sampled candidates, a half of the dialogues each


def run(workdir: Path, *, smoke: bool = False, seed: int = 0) -> Path:
  """Runs every stage that is not done yet and returns the path of the report."""
  d = workdir
  stages = Stages(d, smoke=smoke, seed=seed)
  if jax.config.jax_compilation_cache_dir is None:  # the stages share programs
    jax.config.update("jax_compilation_cache_dir", str(d.resolve() / "xla_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  c = recipes(d, smoke, seed)
  stages.run("speech", "Synthesise speech", lambda: speech(d / "world", smoke, seed))
  stages.run("hear", "Pre-alignment: hear", lambda: train.run(c.hear, d / "hear"))
  stages.run("speak", "Pre-alignment: speak", lambda: train.run(c.speak, d / "speak"))
  stages.run("sft", "Cold-start SFT", lambda: train.run(c.sft, d / "sft"))
  stages.run("preferences", "Simulated preferences", lambda: prefer(d, smoke, seed))
  stages.run("rm", "Reward model", lambda: train.run(c.rm, d / "rm"))
  for arm, title in ARMS.items():
    stages.run(arm, title, lambda arm=arm: train_rl.run(c[arm], d / arm))
  stages.run("evaluation", "Evaluate all of them", lambda: evaluation(d, smoke))
  stages.run("export", "Export to Hugging Face", lambda: hugging_face(d))
  page = report.write(d)
  print(stages.budget())
  print(f"report: {page}")
  return page


def speech(folder: Path, smoke: bool, seed: int) -> None:
  build.build(
    folder,
    train_clips=96 if smoke else 2600,
    heldout_per_task=12 if smoke else 204,
    seed=seed,
    processes=2,
    text_rows=50 if smoke else 1000,
    progress=True,
  )
  for split in ("train", "heldout"):
    prompts.write_prompts(folder, split, TASKS, None, seed)


def recipes(d: Path, smoke: bool, seed: int) -> ConfigDict:
  """One of each stage, each starting from the one before; the arms from one start."""
  flag = ",smoke" if smoke else ""
  world, c = d / "world", ConfigDict()
  c.hear = prealign.get_config(f"phase=hear{flag}")
  c.hear.data.options.speech.path = str(world / "clips-train.jsonl")
  c.speak = prealign.get_config(f"phase=speak{flag}")
  c.speak.init = str(d / "hear")
  c.speak.data.options.dialogue.path = str(world / "captions-train.jsonl")
  c.sft = sft.get_config("smoke" if smoke else "")
  c.sft.init = str(d / "speak")
  c.sft.data.options.dialogue.path = str(world / "dialogues-train.jsonl")
  c.rm = reward_model.get_config("smoke" if smoke else "")
  c.rm.init = str(d / "sft")
  c.rm.data.options.preference.path = str(world / "preferences-train.jsonl")
  c.rlvr = rlvr.get_config(f"algorithm=grpo{flag}")
  c.rlvr_kl = rlvr.get_config(f"algorithm=grpo{flag}")
  c.rlhf = rlhf.get_config(f"algorithm=grpo{flag}")
  c.rlvr_kl.kl.beta = c.rlhf.kl.beta
  c.rlhf.reward_model = str(d / "rm")
  for arm in ARMS:
    c[arm].init = str(d / "sft")
    # On one CPU in float32 sampler and trainer agree to 1e-5: nothing to correct.
    c[arm].correction.kind = "none"
    c[arm].data.options.prompts.path = str(world / "prompts-{split}.jsonl")
  for stage in c.values():
    stage.data.cache = str(d / "cache")
    stage.seed = seed
  return c


def prefer(d: Path, smoke: bool, seed: int) -> None:
  """Pairs of replies, half of them the SFT model's, and what simulated raters say."""
  tokenizer = tokenizers.load("tiny")
  asked = {
    split: build.read_jsonl(d / "world" / f"prompts-{split}.jsonl")[:count]
    for split, count in ASKED["smoke" if smoke else "full"].items()
  }
  places = range(len(TEMPERATURES))
  # The programs that the first replies compile serve all others.
  begun = [replies(d, "train", 0, asked["train"], seed)]

  def compare(split: str) -> None:
    known = begun if split == "train" else []
    more = [replies(d, split, n, asked[split], seed) for n in places[len(known) :]]
    sampled: dict[str, list[dict]] = {}
    for path, temperature in zip(known + more, TEMPERATURES, strict=True):
      add_replies(sampled, path, temperature)
    rows = judged(
      d / "world",
      split,
      asked[split],
      sampled,
      seed,
      length=lambda text: len(tokenizer.encode(text)),
    )
    build.write_jsonl(d / "world" / f"preferences-{split}.jsonl", rows)

  threads.each(compare, asked, count=2)


def judged(
  world: Path,
  split: str,
  dialogues: Sequence[dict],
  sampled: dict[str, list[dict]],
  seed: int,
  *,
  length: Callable[[str], int],
) -> list[dict]:
  """What simulated raters say of pairs of replies of like length to the dialogues."""
  truths = {row["id"]: row for row in build.read_jsonl(world / f"truth-{split}.jsonl")}
  return preferences.rows(
    dialogues,
    [truths[row["id"]] for row in dialogues],
    raters.raters(RATERS, seed=seed),
    seed=seed,
    pairs=len(dialogues),
    raters_per_item=RATERS,
    sampled=sampled,
    length=length,
  )


def replies(
  d: Path, split: str, place: int, dialogues: Sequence[dict], seed: int
) -> Path:
  """A file of the SFT model's replies to every second dialogue, from `place` on."""
  temperature = TEMPERATURES[place]
  name = f"{split}-{temperature}"
  asked = build.write_jsonl(
    d / "world" / f"asked-{name}.jsonl", dialogues[place :: len(TEMPERATURES)]
  )
  out = d / "world" / f"asked-{name}-replies.jsonl"
  generate.rollouts(
    checkpoint=d / "sft",
    jsonl=asked,
    out=out,
    cache=d / "cache",
    batch_size=128,
    max_new_tokens=48,
    temperature=temperature,
    seed=seed,
  )
  return out


def add_replies(found: dict[str, list[dict]], path: Path, temperature: float) -> None:
  """Adds a file's sampled replies, as candidates, to those of their dialogues."""
  for row in build.read_jsonl(path):
    if row["answer"] is not None:  # the thought closed
      reply = {"text": row["answer"], "think": row["think"]}
      reply["model"] = f"sft, temperature {temperature}"
      found.setdefault(row["dialogue_id"], []).append(reply)


def evaluation(d: Path, smoke: bool) -> None:
  """All policies on the same held-out dialogues by the same protocol; reward model.

  Two at a time: their tokens come one after another, which leaves cores idle.
  """
  known = {"data": d / "world", "cache": d / "cache"}

  def evaluated(name: str) -> None:
    folders = {"checkpoint": d / name, "out": d / "evaluation" / name}
    if name == "rm":
      evaluate.run(
        benchmarks=["reward_model"],
        controls=["silence"],  # the others are a pass each
        **folders,
        **known,
      )
      return
    evaluate.run(
      benchmarks=["world"],
      batch_size=16 if smoke else 128,
      max_new_tokens=48,
      silence=name == "sft",  # whether it hears is shown of the common start
      **folders,
      **known,
    )

  # While the first compiles what the other policies use too, the reward model has its
  # own programs.
  threads.each(evaluated, (POLICIES[0], "rm", *POLICIES[1:]), count=2)


def hugging_face(d: Path) -> None:
  """DIR/export/<policy>, a Hugging Face directory each."""
  for policy in POLICIES:
    model = workdirs.load_model(d / policy)
    result = json.loads((d / "evaluation" / policy / "world.json").read_text())
    scores = {
      f"{task}, accuracy on {row['n']} held-out dialogues": round(row["accuracy"], 3)
      for task, row in result["tasks"].items()
    }
    folder = d / "export" / policy
    if folder.exists():  # whole, since an export is renamed when it is whole
      shutil.rmtree(folder)
    export.export(
      export.Weights.of(model.params),
      model.size,
      folder,
      tokenizer=model.tokenizer,
      card={
        "name": f"stepaudio_jax quick start: {ARMS.get(policy, 'SFT')}",
        "license": "apache-2.0",
        "languages": ["en"],
        "summary": "A tiny audio reasoning model that learned from synthetic speech in "
        "minutes, to show the recipe. It is no assistant.",
        "data": "Speech by espeak-ng about a synthetic world "
        "(stepaudio_jax/data/world); no recording of a person. Replies were scored by "
        "simulated listeners.",
        "scores": scores,
        "command": json.loads((d / "stages.json").read_text())["command"],
      },
    )


def main() -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.quickstart",
    description=__doc__.split("\n")[0],
    allow_abbrev=False,
  )
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--smoke", action="store_true", help="a minute, for tests")
  args = parser.parse_args()
  run(args.workdir, smoke=args.smoke, seed=args.seed)


if __name__ == "__main__":
  main()
