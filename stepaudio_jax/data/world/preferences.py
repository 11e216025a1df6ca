"""Preference files (pref/1) of simulated raters over scripted and sampled replies."""

import hashlib
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stepaudio_jax.data.world import build, gold, scripted
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
  sampled: Mapping[str, Sequence[dict]] | None = None,
  length: Callable[[str], int] | None = None,
) -> pathlib.Path:
  """Writes preferences-{split}.jsonl beside a built world's dialogues; see `rows`."""
  folder = pathlib.Path(folder)
  dialogues = build.read_jsonl(folder / f"dialogues-{split}.jsonl")
  truths = build.read_jsonl(folder / f"truth-{split}.jsonl")
  made = rows(
    dialogues, truths, panel, seed=seed, pairs=pairs, sampled=sampled, length=length
  )
  return build.write_jsonl(folder / f"preferences-{split}.jsonl", made)


def rows(
  dialogues: Sequence[dict],
  truths: Sequence[dict],
  panel: Sequence[Rater],
  *,
  seed: int,
  pairs: int,
  sampled: Mapping[str, Sequence[dict]] | None = None,
  length: Callable[[str], int] | None = None,
) -> list[dict]:
  """`pairs` preference rows, one rater each, the dialogues in turn.

  Args:
    sampled: dialogue id → a model's replies [{"text", "think", "model"}], thoughts
      closed; each place of a pair then takes one of them half of the time.
    length: reply text → length to be matched within 20 %; None counts words.
  """
  length = length or (lambda text: len(text.split()))
  made = []
  for number in range(pairs):
    place, lap = number % len(dialogues), number // len(dialogues)
    dialogue, truth = dialogues[place], truths[place]
    if dialogue["id"] != truth["id"]:
      raise ValueError(f"dialogue {dialogue['id']!r} meets truth {truth['id']!r}")
    pair_seed = _stable(seed, dialogue["id"], lap)
    own = list((sampled or {}).get(dialogue["id"], ()))
    pair = _pair(truth, own, pair_seed, length)
    if pair is None:
      continue
    rater = panel[number % len(panel)]
    made.append(_row(f"pref-{number:05d}", dialogue, truth, pair, rater, pair_seed))
  return made


def _pair(
  truth: dict, own: Sequence[dict], seed: int, length: Callable[[str], int]
) -> tuple[dict, dict] | None:
  """Two candidates of matched length in a drawn order, or None where none match."""
  rng = np.random.default_rng([seed, 11])
  written = scripted.candidates(truth, _SCRIPTED, seed)
  sources = [own if own and rng.random() < 0.5 else written for _ in range(2)]
  for left, right in (sources, (written, written)):
    options = [
      (a, b)
      for a, b in itertools.product(left, right)
      if a["text"] != b["text"] and _matched(a, b, length)
    ]
    if options:
      a, b = options[int(rng.integers(len(options)))]
      return (a, b) if rng.random() < 0.5 else (b, a)
  return None


def _matched(a: dict, b: dict, length: Callable[[str], int]) -> bool:
  sizes = sorted((length(a["text"]), length(b["text"])))
  return sizes[1] - sizes[0] <= LENGTHS_WITHIN * sizes[1]


def _row(
  pref_id: str, dialogue: dict, truth: dict, pair: tuple, rater: Rater, seed: int
) -> dict:
  candidates = [
    {"cid": cid, **candidate} for cid, candidate in zip("ab", pair, strict=True)
  ]
  scores = [
    gold.score(truth, gold.reply(one.get("think"), one["text"])) for one in pair
  ]
  labels = rater.judge(f"{pref_id}/{dialogue['id']}", *scores)
  row = {
    "schema": "pref/1",
    "id": pref_id,
    "task_id": dialogue["id"],
    "rater": rater.id,
    "context": dialogue["messages"][:-1],
    "candidates": candidates,
    "overall": labels["overall"],
    "dims": labels["dims"],
    "scores": dict(zip("ab", labels["scores"], strict=True)),
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
    row["rubric"] = dialogue["rubric"]
  return row


def _stable(*parts) -> int:
  digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=4)
  return int.from_bytes(digest.digest(), "big")
