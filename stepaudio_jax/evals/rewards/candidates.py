"""Sampled replies to held-out dialogues, to be scored as comparisons are.

Rollout rows, as `generate --samples N` and policy gradients write them, of dialogues in
DATA/dialogues-heldout.jsonl. Of a file of several steps the last one counts, so that
all candidates of a prompt are of one policy.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging
from etils import epath

from stepaudio_jax.data import jsonl, keys, schema
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.data.schema import Audio, Preference

_KEYS = ("prompt_id", "dialogue_id", "text", "think", "answer")
_CIDS = ("a", "b")

Json = dict[str, Any]


def read(path: epath.PathLike) -> dict[str, list[Json]]:
  """{prompt: its candidates} of the last step; replies without an answer left out.

  Raises:
    ValueError: the file is absent or wrong.
  """
  rows = []
  for row in jsonl.Rows(path):
    if "prompt_id" not in row.value and "kept" in row.value:
      continue  # generate's count of a dialogue's right replies
    lacking = [key for key in _KEYS if key not in row.value]
    if lacking:
      raise ValueError(f"{row.at}: lacks {lacking}; its keys are {sorted(row.value)}")
    if "turn" in row.value:
      raise ValueError(
        f"{row.at}: a reply to turn {row.value['turn']} of a dialogue that was played "
        "(sampling.turns); what was said before it is not in the file"
      )
    rows.append(row.value)
  last = max(row.get("step", 0) for row in rows) if rows else 0
  found: dict[str, list[Json]] = {}
  left = 0
  for row in (row for row in rows if row.get("step", 0) == last):
    if row["answer"] and row["answer"].strip():
      found.setdefault(row["prompt_id"], []).append(row)
    else:
      left += 1
  if not found:
    raise ValueError(f"{path}: no reply of its {len(rows)} has an answer")
  if left:
    logging.warning("%s: %d replies without an answer are left out", path, left)
  return found


class Candidates:
  """Reads like a Corpus of preferences: a prompt's candidates, two by two.

  Comparison k of a prompt with M candidates has the candidates 2k and 2k + 1; behind an
  odd last one stands the first again.

  Args:
    groups: see `read`.
    dialogues: the file with their dialogues.
    dimensions: that every row is to know; nobody has labelled any.

  Raises:
    ValueError: a dialogue that is not in the file.
  """

  names, weights = ("candidates",), (1.0,)

  def __init__(
    self,
    groups: dict[str, list[Json]],
    dialogues: epath.PathLike,
    dimensions: Sequence[str],
  ):
    known = {row.value.get("id"): row for row in jsonl.Rows(dialogues)}
    needed = {row["dialogue_id"] for rows in groups.values() for row in rows}
    lacking = sorted(needed - set(known))
    if lacking:
      raise ValueError(f"{dialogues} lacks {len(lacking)} dialogues: {lacking[:5]}")
    self._keys = keys.Keys()
    self._rows: list[Preference] = []
    self.members: list[tuple[tuple[str, int], ...]] = []  # of both: (prompt, place)
    for prompt, rows in groups.items():
      talk = known[rows[0]["dialogue_id"]]
      for first in range(0, len(rows), 2):
        pair = (first, (first + 1) % len(rows))
        self._rows.append(
          _preference(prompt, [rows[k] for k in pair], talk, dimensions)
        )
        self.members.append(tuple((prompt, k) for k in pair))

  def __len__(self) -> int:
    return len(self._rows)

  def places(self) -> Iterator[tuple[int, int]]:
    return ((0, k) for k in range(len(self._rows)))

  def sample(self, source: int, index: int) -> Preference:
    del source
    return self._rows[index]

  def clips(self) -> dict[str, Audio]:
    """Every clip by its content key."""
    return {self.key(clip): clip for row in self._rows for clip in row.audio}

  def key(self, audio: Audio) -> str:
    return self._keys[audio]


def _preference(
  prompt: str, rows: Sequence[Json], talk: Row, dimensions: Sequence[str]
) -> Preference:
  """One comparison; its task is its own, since the same two replies may come again."""
  name = f"{prompt}, {rows[0].get('sample', 0)} and {rows[1].get('sample', 0)}"
  messages = talk.value["messages"]
  context = messages[:-1] if messages[-1]["role"] == "assistant" else messages
  value = {
    "schema": schema.PREFERENCE_SCHEMA,
    "id": name,
    "task_id": name,
    "rater": "nobody",
    "context": context,
    "candidates": [
      {"cid": cid, "text": row["answer"], "think": row["think"], "model": "sampled"}
      for cid, row in zip(_CIDS, rows, strict=True)
    ],
    "overall": 0,
    "dims": dict.fromkeys(dimensions),
    "ts": 0,
    "order_seed": 0,
  }
  return schema.preference(Row(value, talk.at, talk.folder))
