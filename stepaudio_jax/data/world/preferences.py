"""Preference files (pref/1) of simulated raters over scripted and sampled replies."""

import functools
import hashlib
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stepaudio_jax.data.world import build, gold, prompts, scripted
from stepaudio_jax.data.world.raters import Rater

LENGTHS_WITHIN = 0.2  # of the longer reply; so length cannot explain a preference
_SCRIPTED = 16  # drawn before a pair is chosen
_TS = "2000-01-01T00:00:00Z"  # simulated: no time of day, and the same bytes


def write(
  folder: str | os.PathLike,
  split: str,
  panel: Sequence[Rater],
  *,
  seed: int,
  pairs: int,
  raters_per_item: int = 1,
  tasks: Sequence[str] | None = None,
  sampled: Mapping[str, Sequence[dict]] | None = None,
  length: Callable[[str], int] | None = None,
) -> pathlib.Path:
  """Writes preferences-{split}.jsonl beside a built world's dialogues; see `rows`.

  Args:
    tasks: only their dialogues; None is all.
  """
  folder = pathlib.Path(folder)
  dialogues = build.read_jsonl(folder / f"dialogues-{split}.jsonl")
  truths = build.read_jsonl(folder / f"truth-{split}.jsonl")
  if tasks is not None:
    prompts.check_tasks(tasks)
    dialogues = [row for row in dialogues if row["meta"]["task"] in tasks]
    truths = [row for row in truths if row["task"] in tasks]
  made = rows(
    dialogues,
    truths,
    panel,
    seed=seed,
    pairs=pairs,
    raters_per_item=raters_per_item,
    sampled=sampled,
    length=length,
  )
  return build.write_jsonl(folder / f"preferences-{split}.jsonl", made)


def rows(
  dialogues: Sequence[dict],
  truths: Sequence[dict],
  panel: Sequence[Rater],
  *,
  seed: int,
  pairs: int,
  raters_per_item: int = 1,
  sampled: Mapping[str, Sequence[dict]] | None = None,
  length: Callable[[str], int] | None = None,
) -> list[dict]:
  """`pairs` items of `raters_per_item` preference rows, the dialogues in turn.

  The rows of an item differ in id ("pref-00012-r0", …), rater and labels only. Where
  there are samples, half of the candidates are sampled, as far as lengths match. An
  item for which no two candidates of like length are found is left out.

  Args:
    raters_per_item: different raters that see the same pair; they take turns.
    sampled: dialogue id → a model's replies [{"text", "think", "model"}], thoughts
      closed; empty ones are left out.
    length: reply text → length to be matched within 20 %; None counts words.
  """
  if not 1 <= raters_per_item <= len(panel):
    raise ValueError(
      f"raters_per_item={raters_per_item} is not within 1..{len(panel)}, the raters of "
      "the panel"
    )
  if not dialogues:
    raise ValueError("there are no dialogues to compare replies to")
  # A reply is measured once, however many it is paired with.
  length = functools.lru_cache(maxsize=1 << 12)(
    length or (lambda text: len(text.split()))
  )
  made, owed = [], 0
  for number in range(pairs):
    place, lap = number % len(dialogues), number // len(dialogues)
    dialogue, truth = dialogues[place], truths[place]
    if dialogue["id"] != truth["id"]:
      raise ValueError(f"dialogue {dialogue['id']!r} meets truth {truth['id']!r}")
    pair_seed = _stable(seed, dialogue["id"], lap)
    own = [
      one for one in (sampled or {}).get(dialogue["id"], ()) if one["text"].strip()
    ]
    pair = _pair(truth, own, owed, pair_seed, length)
    if pair is None:
      continue
    if own:
      owed += 1 - sum(one in own for one in pair)
    judges = [panel[(number + k) % len(panel)] for k in range(raters_per_item)]
    made += _item(f"pref-{number:05d}", dialogue, truth, pair, judges, pair_seed)
  return made


def _pair(
  truth: dict,
  own: Sequence[dict],
  owed: int,
  seed: int,
  length: Callable[[str], int],
) -> tuple[dict, dict] | None:
  """Two candidates of matched length in a drawn order, or None where none match.

  Args:
    own: sampled candidates.
    owed: sampled candidates that are lacking so far to half of all (negative: too
      many); while there is a debt, a pair takes at least one place against it.
  """
  rng = np.random.default_rng([seed, 11])
  written = scripted.candidates(truth, _SCRIPTED, seed)
  wanted = int(rng.binomial(2, 0.5)) if own else 0  # places of the sampled
  if own and owed:
    wanted = max(wanted, 1) if owed > 0 else min(wanted, 1)
  # What comes nearest to it and pays the debt, should the lengths not match.
  order = sorted(
    range(3) if own else (0,),
    key=lambda count: (abs(count - wanted), -count if owed > 0 else count),
  )
  for count in order:
    left, right = own if count else written, own if count == 2 else written
    options = [
      (a, b)
      for a, b in itertools.product(left, right)
      if a["text"] != b["text"] and _matched(a, b, length)
    ]
    if options:
      options = _contrasting(options, truth, rng)
      a, b = options[int(rng.integers(len(options)))]
      return (a, b) if rng.random() < 0.5 else (b, a)
  return None


def _contrasting(
  options: Sequence[tuple[dict, dict]], truth: dict, rng: np.random.Generator
) -> Sequence[tuple[dict, dict]]:
  """Those that differ in a drawn dimension, else in another, else all of them.

  Pairs that are alike in nearly everything would teach little for a rater's time: most
  replies obey, cohere and fit, so that the rarer faults would hardly be compared.
  """

  def marks(one: dict) -> dict[str, float]:
    return gold.score(truth, gold.reply(one.get("think"), one["text"]))

  candidates = {id(one): one for pair in options for one in pair}
  known = {key: marks(one) for key, one in candidates.items()}
  for place in rng.permutation(len(gold.DIMENSIONS)):
    name = gold.DIMENSIONS[int(place)]
    apart = [
      (a, b) for a, b in options if abs(known[id(a)][name] - known[id(b)][name]) >= 1
    ]
    if apart:
      return apart
  return options


def _matched(a: dict, b: dict, length: Callable[[str], int]) -> bool:
  sizes = sorted((length(a["text"]), length(b["text"])))
  return sizes[1] - sizes[0] <= LENGTHS_WITHIN * sizes[1]


def _item(
  name: str,
  dialogue: dict,
  truth: dict,
  pair: tuple[dict, dict],
  judges: Sequence[Rater],
  seed: int,
) -> list[dict]:
  """The rows of one pair, a rater each; an only rater's row has the pair's name."""
  candidates = [
    {"cid": cid, **candidate} for cid, candidate in zip("ab", pair, strict=True)
  ]
  scores = [
    gold.score(truth, gold.reply(one.get("think"), one["text"])) for one in pair
  ]
  shared = {
    "gold": {
      **dict(zip("ab", scores, strict=True)),
      "simulated": True,
      "task": truth["task"],
      "turns": truth["turns"],
    },
    "ts": _TS,
    "order_seed": seed,
  }
  if "rubric" in dialogue:
    shared["rubric"] = dialogue["rubric"]
  made = []
  for place, rater in enumerate(judges):
    labels = rater.judge(f"{name}/{dialogue['id']}", *scores)
    row = {
      "schema": "pref/1",
      "id": name if len(judges) == 1 else f"{name}-r{place}",
      "task_id": dialogue["id"],
      "rater": rater.id,
      "context": dialogue["messages"][:-1],
      "candidates": candidates,
      "overall": labels["overall"],
      "dims": labels["dims"],
      "scores": dict(zip("ab", labels["scores"], strict=True)),
    }
    made.append({**row, **shared})
  return made


def _stable(*parts) -> int:
  digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=4)
  return int.from_bytes(digest.digest(), "big")
