"""Which replies a step learns from: refilled groups, age, overlap, what waits."""

import dataclasses
import itertools
import signal
import types
import zlib

import jax
import numpy as np
import pytest

from configs import rlvr
from stepaudio_jax import logs, steps, train_rl, workdirs
from stepaudio_jax.core import processes, tree
from stepaudio_jax.core.types import Rollout
from stepaudio_jax.models import sizes
from stepaudio_jax.rollout.actor import Actor, Played
from stepaudio_jax.rollout.collector import Collecting, Collector
from stepaudio_jax.rollout.drawn import Drawn
from stepaudio_jax.rollout.gate import Disagreement
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.rollout.scorer import Scores
from tests import tones

NAN = np.nan
SETTINGS = {"refill_rounds": 0, "overlap": False, "max_age": 0}


class Stub:
  """Replies to a prompt are worth what its name says: "f…" are all right, "m…" mixed.

  "n…" have one reward only, the other is missing.
  """

  tokenizer = None
  worth = types.MappingProxyType({"f": (1.0, 1.0), "m": (0.0, 1.0), "n": (1.0, NAN)})

  def begun(self, policy, prompts, rng):
    return (policy["adaptor"], jax.random.key_data(rng).tolist())

  def heard(self, params, rows, rollout, rng):
    return rollout

  def scored(self, prompts, rows, rollout, version):
    reward_BC = np.asarray([x for row in rows for x in self.worth[row["id"][0]]])
    count = len(reward_BC)
    one_B1 = np.ones((count, 1))
    made = Rollout(one_B1, one_B1, one_B1 > 0, one_B1[:, 0], np.zeros(count, bool))
    scores = Scores(("x",), reward_BC[:, None], one_B1)
    texts = [Said("", f"{rollout[0]}", "")] * count
    return Drawn(rows, made, texts, scores, np.full(count, version, np.int32))

  def measured(self, params, prompts, drawn, version):
    return Played(drawn, None, prompts, None, version, {"measured": params["adaptor"]})


class Feed:
  def row(self, name):
    return {"id": name}

  def place(self, name):
    return name

  def shape(self, places):
    return [*places]

  def batch(self, rows, first_number, limits):
    assert [name for (name,) in rows] == limits  # of one process
    return limits


def collector(names, **changed):
  """Asks those prompts, two at a time."""
  pairs = itertools.batched(names, 2) if hasattr(itertools, "batched") else None
  pairs = pairs or [names[k : k + 2] for k in range(0, len(names), 2)]
  asked = iter([([*pair], [*pair]) for pair in pairs])
  settings = Collecting(**SETTINGS | changed)
  return Collector(Stub(), Feed(), asked, settings, seed=0, prompts=2)


def of(found):
  return [row["id"] for row in found.asked]


def policy(number):
  return {"adaptor": number, "decoder": number}


def test_without_refilling_every_group_is_kept():
  found = collector(["f1", "m1"]).next(policy(0), 1)
  assert of(found) == ["f1", "m1"]
  assert found.played.experience == ["f1", "m1"]  # the prompts that were asked
  assert found.counts == {"data/age": 0.0}


def test_groups_without_spread_are_replaced():
  """f1 flat, m1 | f2, n1 flat | m2, m3: three rounds for two groups; m3 is over."""
  names = ["f1", "m1", "f2", "n1", "m2", "m3"]
  given = collector(names, refill_rounds=3)
  found = given.next(policy(0), 1)
  assert of(found) == ["m1", "m2"]
  assert found.played.experience == ["m1", "m2"]  # prompts go with their replies
  assert found.counts == {
    "data/groups_asked": 6,
    "data/groups_flat": 3,
    "data/groups_filled": 0,
    "data/groups_stale": 0,
    "data/groups_waiting": 1,
    "data/age": 0.0,
  }


def test_rounds_of_a_step_have_random_streams_of_their_own(monkeypatch):
  seen = []
  begun = Stub.begun

  def told(self, policy, prompts, rng):
    seen.append(tuple(jax.random.key_data(rng).tolist()))
    return begun(self, policy, prompts, rng)

  monkeypatch.setattr(Stub, "begun", told)
  collector(["f1", "f2", "f3", "f4", "m1", "m2"], refill_rounds=2).next(policy(0), 1)
  assert len(set(seen)) == 3


def test_too_few_rounds_are_filled_with_flat_groups_and_counted():
  found = collector(["f1", "f2", "m1", "f3"], refill_rounds=1).next(policy(0), 1)
  assert of(found) == ["m1", "f1"]
  assert found.counts["data/groups_filled"] == 1


@pytest.mark.parametrize(
  ("max_age", "wanted", "stale"), [(0, ["m4", "m5"], 1), (1, ["m3", "m4"], 0)]
)
def test_what_is_over_is_used_while_it_is_young_enough(max_age, wanted, stale):
  names = ["f1", "m1", "m2", "m3", "m4", "m5"]
  given = collector(names, refill_rounds=1, max_age=max_age)
  assert of(given.next(policy(0), 1)) == ["m1", "m2"]
  found = given.next(policy(1), 2)
  assert of(found) == wanted
  assert found.counts["data/groups_stale"] == stale
  assert found.counts["data/age"] == (0.5 if max_age else 0.0)


def test_age_is_that_of_all_processes_replies(monkeypatch):
  """m3 waited a step, m4 did not; this process has m3 alone."""
  whole = processes.part

  def first_of_two(items):
    return items[:1] if isinstance(items[0], Drawn) else whole(items)

  names = ["f1", "m1", "m2", "m3", "m4", "m5"]
  given = collector(names, refill_rounds=1, max_age=1)
  given.next(policy(0), 1)
  monkeypatch.setattr(processes, "part", first_of_two)
  found = given.next(policy(1), 2)
  assert of(found) == ["m3", "m4"]
  assert len(found.played.drawn.asked) == 1
  assert found.counts["data/age"] == 0.5


def test_overlap_asks_the_policy_before_the_update_and_measures_under_it():
  given = collector(["m1", "m2", "m3", "m4"], overlap=True, max_age=1)
  first = given.next(policy(0), 1)
  given.begin_next(policy(0), 2)
  second = given.next(policy(1), 2)
  for found, age in ((first, 0.0), (second, 1.0)):
    assert found.played.seconds["measured"] == 0  # of both the policy at the start
    assert found.counts["data/age"] == age


def test_overlap_has_a_copy_that_the_update_cannot_overwrite():
  given = collector(["m1", "m2"], overlap=True, max_age=1)
  before = {"adaptor": jax.numpy.ones(3), "decoder": jax.numpy.ones(3)}
  given.begin_next(before, 2)
  before["adaptor"].delete()
  assert given._ahead.policy["adaptor"].sum() == 3


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"refill_rounds": -1}, "refill_rounds=-1"),
    ({"overlap": True}, "max_age=0 at least 1"),
    ({"max_age": 1}, "would do nothing"),
    ({"overlap": True, "max_age": 2}, "would do nothing"),
  ],
)
def test_settings_that_cannot_act_are_refused(changed, message):
  with pytest.raises(ValueError, match=message):
    Collecting(**SETTINGS | changed)


# ─── The loop ───────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def little_model(monkeypatch):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  folder = tones.world(tmp_path_factory.mktemp("tones"))
  tones.policy(folder / "sft")
  return folder


def recipe(world, **changed):
  """Two updates a rollout, all of collecting on, rewards that differ by chance."""
  c = rlvr.get_config("algorithm=grpo,smoke")
  c.init = str(world / "sft")
  c.data.options.prompts.path = str(world / "prompts-{split}.jsonl")
  c.data.cache = str(world / "cache")
  c.data.max_tokens = 64
  c.sampling.max_new_tokens = 8
  c.prompts_per_step, c.total_steps, c.epochs = 2, 4, 2
  c.checkpoint.every_steps = 10
  c.optim.lr = 3e-3
  c.heldout.samples, c.heldout.batch_size = c.sampling.samples, c.prompts_per_step
  c.rollout.update({"refill_rounds": 2, "overlap": True, "max_age": 2, **changed})
  return c


@pytest.fixture
def by_length(monkeypatch):
  """A rule that gives random policies rewards of some spread, and none to some."""
  from stepaudio_jax.rewards import accuracy

  def score(row, text):
    decided = zlib.crc32(row["id"].encode()) % 2
    return 1.0 if decided else float(zlib.crc32(text.encode()) % 2)

  monkeypatch.setattr(accuracy, "score", score)


def rows(workdir, name):
  found = logs.read_metrics(workdir / f"{name}.jsonl")
  return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in found]


def test_stopped_with_replies_under_way_it_ends_as_if_never_stopped(
  world, tmp_path, monkeypatch, by_length
):
  whole = train_rl.run(recipe(world), tmp_path / "whole")
  metrics = rows(whole, "metrics")
  assert [row["data/age"] > 0 for row in metrics] == [False, True, True, True]
  assert sum(row["data/groups_flat"] for row in metrics) > 0
  assert sum(row["data/groups_waiting"] for row in metrics) > 0
  finite = steps.finite

  def announced(scalars, step, ids):
    signal.raise_signal(signal.SIGTERM) if step == 2 else None
    return finite(scalars, step, ids)

  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    patch.setattr(steps, "finite", announced)
    with pytest.raises(SystemExit):
      train_rl.run(recipe(world), tmp_path / "run")
  signal.signal(signal.SIGTERM, before)
  train_rl.run(recipe(world), tmp_path / "run")
  for name in ("metrics", "samples", "heldout"):
    assert rows(tmp_path / "run", name) == rows(whole, name), name
  ours, theirs = (workdirs.load_params(d) for d in (tmp_path / "run", whole))
  assert tree.content_hash(ours) == tree.content_hash(theirs)


def test_a_step_learns_from_the_policy_before_the_last_update(world, tmp_path):
  c = recipe(world, refill_rounds=0, max_age=1)
  c.epochs, c.total_steps = 1, 3
  folder = train_rl.run(c, tmp_path / "run")
  versions = {r["step"]: r["policy_version"] for r in rows(folder, "samples")}
  assert versions == {1: 0, 2: 0, 3: 1}
  # Sampler and trainer are the same policy all the same.
  assert all(r["train/agreement_max_abs"] < 1e-4 for r in rows(folder, "metrics"))


def test_what_waits_is_proved_when_it_is_read(world, tmp_path):
  c = recipe(world, refill_rounds=0, max_age=1)
  c.total_steps = 1
  folder = train_rl.run(c, tmp_path / "run")
  (path,) = (folder / "waiting").iterdir()
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  c.total_steps = 2
  with pytest.raises(ValueError, match=r"1\.npz.* has changed"):
    train_rl.run(c, folder)
  path.unlink()
  with pytest.raises(ValueError, match=r"1\.npz.* is missing"):
    train_rl.run(c, folder)


def test_a_misplaced_recording_stops_the_run(world, tmp_path, monkeypatch):
  """The trainer reads every prompt's sound one token too late."""
  laid = Actor._laid

  def misplaced(self, prompts, rollout):
    audio_BT = np.roll(prompts.audio_BT, 1, axis=1)
    return laid(self, dataclasses.replace(prompts, audio_BT=audio_BT), rollout)

  monkeypatch.setattr(Actor, "_laid", misplaced)
  c = recipe(world, refill_rounds=0, overlap=False, max_age=0)
  with pytest.raises(Disagreement, match=r"at step 1: .*nats.*max_abs=0\.001.*worst"):
    train_rl.run(c, tmp_path / "run")
  assert not rows(tmp_path / "run", "metrics")
