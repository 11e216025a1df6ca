"""One caption a clip, for pre-alignment 0b: what is said and how it sounds."""

from collections.abc import Mapping, Sequence

from stepaudio_jax.data.world.plan import Take

QUESTION = "Write down what is said and how it sounds."
_SOUNDS = {
  "pitch": "{} pitch",
  "rate": "{} rate",
  "speakers": "{} voice(s)",
  "emotion": "{} tone",
}


def rows(takes: Sequence[Take], paths: Mapping[str, str]) -> list[dict]:
  """Dialogue rows, without thought, in the order of the clips.

  Args:
    paths: clip id → path of its audio as written into the rows.
  """
  return [_row(take, paths[take.id]) for take in takes]


def text(take: Take) -> str:
  """ "three four. low pitch, slow rate." """
  sounds = ", ".join(_SOUNDS[name].format(take.labels[name]) for name in take.labels)
  return f"{take.transcript}. {sounds}."


def _row(take: Take, path: str) -> dict:
  heard = [{"type": "audio", "path": path}, {"type": "text", "text": QUESTION}]
  return {
    "id": f"caption-{take.id}",
    "messages": [
      {"role": "human", "content": heard},
      {"role": "assistant", "content": [{"type": "text", "text": text(take)}]},
    ],
    "meta": {"task": "caption", "clips": [take.id], "turns": 1},
  }
