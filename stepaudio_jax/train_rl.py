"""Policy-gradient stages: RLVR and RLHF. One loop around sampling, different rewards.

  python -m stepaudio_jax.train_rl --config configs/rlvr.py --workdir runs/rlvr \
    --config.init=runs/sft

The same command with the same workdir goes on where it was killed.
"""

import dataclasses
import functools
import time
from contextlib import closing

import jax
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import (
  checkpoint,
  learner,
  logs,
  meshes,
  origins,
  preemption,
  rl,
  rubrics,
  sharding,
  workdirs,
)
from stepaudio_jax.core import entry, packs, processes
from stepaudio_jax.core.types import Params
from stepaudio_jax.data import loader
from stepaudio_jax.data.examples import Examples
from stepaudio_jax.evals.parts import hearing
from stepaudio_jax.models import step_audio
from stepaudio_jax.rollout import (
  combining,
  ensemble,
  heldout,
  keys,
  overlong,
  scorable,
  summary,
  waiting,
  watch,
)
from stepaudio_jax.rollout.actor import Actor, Packing, Sampling
from stepaudio_jax.rollout.collector import Collecting, Collector
from stepaudio_jax.rollout.gate import Gate
from stepaudio_jax.rollout.judge import LearnedJudge
from stepaudio_jax.rollout.scorer import Judge, Scorer
from stepaudio_jax.rollout.talks import Talks
from stepaudio_jax.text import tokenizer as tokenizers
from stepaudio_jax.text.tokenizer import Tokenizer


def run(config: ConfigDict, workdir: epath.PathLike) -> epath.Path:
  """Trains to `config.total_steps` and returns the workdir, a loadable checkpoint."""

  # ─── Set-up ───────────────────────────────────────────────────────────────────────
  c = keys.checked(config.copy_and_resolve_references())
  workdir = logs.check_workdir(workdir, c)
  entry.compilation_cache(workdir / "xla_cache")
  tokenizer = tokenizers.load(c.tokenizer)
  for key in ("init", "reference"):
    origins.check_writes(key, c[key])
  origins.check_tokenizer(c.init, tokenizer)
  size = origins.start_size(c.size, c.init, whole=True)
  mesh = meshes.mesh(c.mesh)
  drawing_mesh = meshes.another_mesh(c.sampling_mesh, mesh)
  sharding.rows(c.prompts_per_step, 1, drawing_mesh)
  sharding.rows(c.prompts_per_step // c.minibatches, c.microbatches, mesh)
  for each in (mesh, drawing_mesh):
    sharding.rows(c.heldout.batch_size, 1, each)
  model = sharding.model(c, size, mesh)
  algorithm = rl.load(c.algorithm.name)

  # ─── Policy, critic, reference ────────────────────────────────────────────────────
  sources = {"init": c.init, "reference": c.reference or c.init}
  sources |= ensemble.sources(c.reward_model)
  sources = origins.pinned(workdir, sources | rubrics.sources(c))
  axes = step_audio.axis_names(size)
  held = dict.fromkeys(learner.SPEAKING, "float32") | {"encoder": c.dtype}
  loaded = origins.load_params(sources["init"], place=sharding.placer(mesh, axes, held))
  tx = learner.optimiser(c, algorithm)
  state = learner.initial_state(c, loaded, tx, algorithm)
  encoder = sharding.gathered(loaded["encoder"])
  del loaded  # the state's, which the first step overwrites
  place = sharding.placer(
    mesh,
    axes,
    dict.fromkeys(learner.SPEAKING, c.dtype),
    offload="reference" in c.offload,
  )
  reference = learner.speaking(origins.load_params(sources["reference"], place=place))

  # ─── Prompts, rewards ─────────────────────────────────────────────────────────────
  cache = epath.Path(c.data.cache) if c.data.cache else workdir / "cache"
  ear = hearing.frozen_encoder({"encoder": encoder}, model)
  open_prompts = functools.partial(
    loader.prompts,
    c.data,
    played=c.sampling.turns,
    cache=cache,
    tokenizer=tokenizer,
    unfit=scorable.unfit(c.rewards.rules, rubric=bool(c.judge)),
    **ear,
  )
  feed, unseen = open_prompts(c.data.split), open_prompts(c.heldout.split)
  keys.check_prompts(c, sum(feed.counts), len(feed.skipped))
  batches = loader.batches(feed, c.seed, c.prompts_per_step, pack=False)
  reader = judge(c, sources, encoder, tokenizer, mesh)
  longest = overlong.shaped(c.rewards, c.sampling.max_new_tokens)
  who = rubrics.judge(c, sources, cache)
  asked = rubrics.terms(c, who), rubrics.preference(c, who, sources, cache)
  dimensions = ensemble.logged(c.rewards.learned, c.reward_model)
  scorer = Scorer(c.rewards.rules, dimensions, reader, longest, *asked)
  joint = combining.combining(c, scorer.names, sources.get("reward_model"))
  watcher = watch.Watch(watch.Limits(**c.log.warn), scorer.judged)
  player = functools.partial(
    Actor,
    model,
    tokenizer,
    scorer,
    reference,
    mesh,
    drawing_mesh=drawing_mesh,
  )
  how = Sampling(**c.sampling)
  actor = player(
    how,
    packing(c, mesh, c.minibatches * c.microbatches),
    talks=talks(c, feed, tokenizer, how.samples),
    measures=not learner.update_measures(c),
  )
  collector = Collector(
    actor,
    feed,
    batches,
    Collecting(**c.rollout),
    seed=c.seed,
    prompts=c.prompts_per_step,
    how=joint,
  )
  gate = Gate(**c.gate)
  exam = heldout.Exam(
    unseen,
    c.heldout.prompts,
    c.heldout.batch_size,
    player(
      dataclasses.replace(how, samples=c.heldout.samples),
      packing(c, mesh, 1),
      talks=talks(c, unseen, tokenizer, c.heldout.samples),
    ),
    joint,
  )
  logs.record(workdir, c)
  if processes.first():
    workdirs.describe(workdir, model.size, tokenizer)

  # ─── Resume ───────────────────────────────────────────────────────────────────────
  saved, beta = checkpoint.Checkpoints(workdir, **c.checkpoint), c.kl.beta
  if saved.begun(c.total_steps):
    state, position = saved.restore(state)
    batches.set_state(position["data"])
    beta = position["kl_beta"]
    watcher.load(position["warned"])
    waiting.load(collector, workdir, position["waiting"])
    logs.say(f"resumed after step {int(state.step) // (c.epochs * c.minibatches)}")
  start = int(state.step) // (c.epochs * c.minibatches)
  metrics = logs.Metrics(workdir, start_step=start, total_steps=c.total_steps)
  samples = logs.Journal(workdir / "samples.jsonl", start_step=start)
  warnings = logs.Journal(workdir / "warnings.jsonl", start_step=start)
  # Rows of step 0 are whole once there is a checkpoint.
  exams = logs.Journal(workdir / "heldout.jsonl", start_step=start or -1)
  update = learner.updater(c, model, algorithm, tx, state)
  advantages = jax.jit(functools.partial(learner.advised, c, algorithm, how=joint))

  # ─── Loop ─────────────────────────────────────────────────────────────────────────
  with (
    sharding.over(mesh),
    closing(batches),
    closing(metrics),
    closing(samples),
    closing(warnings),
    closing(exams),
    closing(saved),
    preemption.Notice() as notice,
  ):
    if not exams.kept:
      exams.write(exam.rows(state.params, 0, c.seed))
    for step in range(start + 1, c.total_steps + 1):
      clock = time.perf_counter()
      found = collector.next(state.params, step)
      collector.begin_next(state.params, step + 1)
      learned = advantages(found.played.experience, beta)
      ids, replies = [row["id"] for row in found.asked], found.played.replies
      state, values, seen = update(state, replies, learned, step, ids, beta)
      played = actor.completed(found.played, seen) if seen else found.played
      played = actor.whole(played, found.asked)
      agreed = gate.check(step, played)
      values |= {f"train/agreement_{name}": x for name, x in agreed.items()}
      values |= summary.summary(played, how.samples, how.max_think_tokens, joint)
      told, warned = watcher.look(step, played.drawn, values)
      warnings.write(warned)
      values |= found.counts | told | scorer.counts() | rubrics.counts(who)
      values |= {"train/kl_beta": beta, "data/skipped": len(feed.skipped)}
      beta = learner.following(c, beta, values["train/kl_k3"])
      values |= packs.padding(found.played.replies)
      values |= {f"time/{name}": taken for name, taken in played.seconds.items()}
      values |= {"time/step_s": time.perf_counter() - clock}
      if step % c.log.every_steps == 0 or step == c.total_steps:
        metrics.write(step, values)
        advantage_BT = actor.everyones(learned.advantage_BT)
        samples.write(summary.rows(step, played, advantage_BT, c.log.prompts, joint))
      if exam.due(step, c.heldout.every_steps, c.total_steps):
        exams.write(exam.rows(state.params, step, c.seed))
      leaving = notice.given(step)
      if leaving or saved.due(step, c.total_steps):
        for journal in (metrics, samples, warnings, exams):
          journal.flush()
        collector.settle(state.params, step + 1)
        kept = waiting.save(collector, workdir, step, c.checkpoint.keep + 1)
        position = {"data": batches.get_state(), "waiting": kept, "kl_beta": beta}
        position["warned"] = watcher.state()
        saved.save(step, state, position)
      if leaving:
        saved.wait()
        preemption.leave(step, workdir)
  if processes.first():
    result = heldout.compared(logs.read_metrics(workdir / "heldout.jsonl"))
    logs.write_json(workdir / "heldout.json", result)
    logs.say(heldout.table(result))
  return workdir


def packing(c: ConfigDict, mesh: jax.sharding.Mesh, parts: int) -> Packing | None:
  """A pack for each device and part of an update; none where `data.pack` is off."""
  if not c.data.pack:
    return None
  packs = sharding.packs(mesh, parts)
  row_tokens = c.data.row_tokens or c.data.max_tokens + c.sampling.max_new_tokens
  return Packing(packs, row_tokens, c.data.share_prompts, tuple(c.data.pack_rows))


def talks(
  c: ConfigDict, feed: Examples, tokenizer: Tokenizer, samples: int
) -> Talks | None:
  """What plays the dialogues' last turns; none where only the last is asked."""
  if c.sampling.turns == 1:
    return None
  return Talks(
    feed,
    tokenizer,
    turns=c.sampling.turns,
    samples=samples,
    rewarded=c.rewards.turns,
  )


def judge(
  c: ConfigDict,
  sources: dict[str, epath.Path],
  encoder: Params,
  tokenizer: Tokenizer,
  mesh: jax.sharding.Mesh,
) -> Judge | None:
  """The reward model of `c.reward_model`, or an ensemble of those that it names; none
  where no learned reward is named.

  Raises:
    ValueError: a dimension that it lacks; its own are listed. Members that are not
      alike, or an uncertainty without several.
  """
  named = ensemble.sources(c.reward_model)
  if c.rewards.uncertainty and (not c.rewards.learned or len(named) < 2):
    raise ValueError(
      f"rewards.uncertainty={c.rewards.uncertainty} of reward_model="
      f"{c.reward_model!r}: it needs learned rewards of several, runs/rm-0,runs/rm-1"
    )
  if not c.rewards.learned:
    return None
  if not c.reward_model:
    raise ValueError(f"rewards {sorted(c.rewards.learned)} need a reward_model")
  first, members = None, []
  for name, folder in named.items():
    loaded = origins.load_reward_model(sources[name])
    unknown = sorted(set(c.rewards.learned) - set(loaded.dimensions))
    if unknown:
      raise ValueError(
        f"unknown reward dimensions {unknown}; {folder} has {loaded.dimensions}"
      )
    first = first or dataclasses.replace(loaded, params={})
    workdirs.check_alike(first, loaded, (c.reward_model, folder))
    reader = LearnedJudge(
      loaded,
      encoder=encoder,
      tokenizer=tokenizer,
      max_new_tokens=c.sampling.max_new_tokens,
      reply_buckets=c.sampling.reply_buckets,
      model=sharding.model(c, loaded.size, mesh),
      mesh=mesh,
      packed=c.data.pack,
      parts=c.minibatches * c.microbatches,
      like=members[0] if members else None,
    )
    members.append(reader)
  if len(members) == 1:
    return members[0]
  return ensemble.Ensemble(members, c.rewards.uncertainty)


def main() -> None:
  entry.run_recipe("train_rl", __doc__, run)


if __name__ == "__main__":
  main()
