r"""More held-out preferences of a quick start's world, for the figures that want many.

  python -m experiments.preferences --run runs/quickstart --pairs 2400 \
    --out runs/quickstart/heldout

Calibration error in ten bins wants some thousand pairs; the quick start, which has ten
minutes, asks for 360. This asks the same simulated raters about more pairs of replies
to the same held-out dialogues, a half of them its SFT model's, and writes
OUT/preferences-heldout.jsonl, for

  python -m stepaudio_jax.evaluate --checkpoint runs/quickstart/rm \
    --benchmark reward_model --data runs/quickstart/heldout

Replies that were drawn before a kill are kept; the run itself is only read. --world
names another folder of stepaudio_jax.data.world.build to ask about and --split its
dialogues, prompts-SPLIT.jsonl: more to learn from.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import quickstart
from stepaudio_jax import generate
from stepaudio_jax.core import entry, errors, files
from stepaudio_jax.data.world import build, preferences, raters
from stepaudio_jax.text import messages as messages_lib
from stepaudio_jax.text import tokenizer as tokenizers

SPLIT = "heldout"
MAX_NEW_TOKENS = 48  # of a reply, as in the quick start
SPARE, ROUNDS = 1.2, 4  # pairs to begin with; tries, of ever more, before giving up

Row = dict[str, Any]


def run(
  source: Path,
  out: Path,
  *,
  pairs: int,
  world: Path | None = None,
  split: str = SPLIT,
) -> Path:
  """Writes the preferences, and a rollout row of each reply that was drawn for them.

  Args:
    source: a finished quick start; its seed, and so its panel of raters, hold here.
    world: a built world to ask about; None is the quick start's.

  Raises:
    ValueError: too many pairs for these dialogues, or a folder with other pairs.
  """
  if pairs < 1:
    raise ValueError(f"pairs={pairs} must be at least 1")
  stages = json.loads((source / "stages.json").read_text())
  out.mkdir(parents=True, exist_ok=True)
  world, seed = world or source / "world", stages["seed"]
  settings = {"run": str(source.resolve()), "pairs": pairs}
  _check(out, {**settings, "world": str(world.resolve()), "split": split})
  entry.compilation_cache(out.resolve() / "xla_cache")
  asked = world / f"prompts-{split}.jsonl"
  if not asked.exists():
    raise ValueError(f"{world} has no prompts of the split {split!r}: {asked.name}")
  dialogues = [moved(row, world, out) for row in build.read_jsonl(asked)]
  truths = {row["id"]: row for row in build.read_jsonl(world / f"truth-{split}.jsonl")}
  laps = -(-pairs // len(dialogues))
  samples = -(-laps // len(quickstart.TEMPERATURES))
  sampled = _sampled(source, out, dialogues, seed, samples)
  tokenizer = tokenizers.load("tiny")
  found = different(
    pairs,
    dialogues,
    [truths[row["id"]] for row in dialogues],
    raters.raters(quickstart.RATERS, seed=seed),
    seed=seed,
    sampled=sampled,
    length=lambda text: len(tokenizer.encode(text)),
  )
  return build.write_jsonl(out / f"preferences-{split}.jsonl", found)


def different(
  pairs: int,
  dialogues: Sequence[Row],
  truths: Sequence[Row],
  panel: Sequence[raters.Rater],
  **options: Any,
) -> list[Row]:
  """Rows of so many pairs, no two of them the same replies to one dialogue.

  Args:
    **options: of preferences.rows.

  Raises:
    ValueError: there are not so many.
  """
  rows: list[Row] = []
  for attempt in range(1, ROUNDS + 1):
    made = preferences.rows(
      dialogues,
      truths,
      panel,
      pairs=round(pairs * SPARE**attempt),
      raters_per_item=len(panel),
      **options,
    )
    rows = [*_unlike(made, len(panel))]
    if len(rows) >= pairs * len(panel):
      return rows[: pairs * len(panel)]
  raise ValueError(
    f"pairs={pairs}: these {len(dialogues)} dialogues give "
    f"{len(rows) // len(panel)} different ones"
  )


def _unlike(rows: Sequence[Row], raters_each: int) -> Iterator[Row]:
  """Without the pairs that were there before, in either order."""
  known = set()
  for start in range(0, len(rows), raters_each):
    first = rows[start]
    said = sorted((c["text"], c.get("think") or "") for c in first["candidates"])
    key = (first["task_id"], *said)
    if key not in known:
      known.add(key)
      yield from rows[start : start + raters_each]


def _sampled(
  source: Path, out: Path, dialogues: Sequence[Row], seed: int, samples: int
) -> dict[str, list[Row]]:
  """Dialogue id → replies of the SFT model, so many at each temperature."""
  asked = build.write_jsonl(out / "asked.jsonl", dialogues)
  found: dict[str, list[Row]] = {}
  for temperature in quickstart.TEMPERATURES:
    replies = out / f"replies-{temperature}.jsonl"
    if not replies.exists():  # written whole or not at all
      generate.rollouts(
        checkpoint=source / "sft",
        jsonl=asked,
        out=replies,
        cache=out / "cache",
        batch_size=128,
        max_new_tokens=MAX_NEW_TOKENS,
        temperature=temperature,
        samples=samples,
        seed=seed,
      )
    quickstart.add_replies(found, replies, temperature)
  return found


def moved(row: Row, folder: Path, out: Path) -> Row:
  """A dialogue whose relative paths start in `out` instead of `folder`."""
  copy = json.loads(json.dumps(row))
  for block in messages_lib.audio_blocks(copy["messages"]):
    if not os.path.isabs(block["path"]):
      path = (folder / block["path"]).resolve()
      block["path"] = os.path.relpath(path, out.resolve())
  return copy


def _check(out: Path, settings: Mapping[str, Any]) -> None:
  """Writes what the folder is of, or finds the same there."""
  path = out / "preferences.json"
  if path.exists():
    there = json.loads(path.read_text())
    changed = [
      f"{k}={there.get(k)!r} (asked for: {v!r})"
      for k, v in settings.items()
      if there.get(k) != v
    ]
    if changed:
      raise ValueError(
        f"{out} holds preferences with {', '.join(changed)}; use another"
      )
    return
  with files.aside(path) as partial:
    partial.write_text(json.dumps(settings, indent=1))


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.preferences",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("--run", required=True, type=Path, metavar="DIR", dest="source")
  parser.add_argument("--out", required=True, type=Path, metavar="DIR")
  parser.add_argument("--pairs", type=int, default=2400, metavar="N", help="2400")
  parser.add_argument("--world", type=Path, metavar="DIR", help="default RUN/world")
  parser.add_argument("--split", default=SPLIT, help=f"default {SPLIT}")
  options = vars(parser.parse_args(argv))
  with errors.readable("preferences"):
    print(run(**options))


if __name__ == "__main__":
  main()
