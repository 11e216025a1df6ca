"""Chat completions as OpenAI and vLLM put them: what is sent, and what comes back."""

import base64
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import soundfile

from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.core import levels
from stepaudio_jax.core.lengths import SAMPLE_RATE
from stepaudio_jax.judges import posting
from stepaudio_jax.judges.kept import Said
from stepaudio_jax.judges.posting import Failed, Refused


def said(value: Any) -> Said:
  """What a completion says, and what it took.

  Raises:
    Failed: it is none.
  """
  try:
    first = value["choices"][0]
    text, reason = first["message"]["content"], first.get("finish_reason")
    usage = value.get("usage")
  except (KeyError, IndexError, TypeError, AttributeError):
    shown = json.dumps(value)[: posting.SHOWN]
    raise Failed(f"no chat completion: {shown}") from None
  tokens = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
  if text is None and reason == "length":
    return Said("", True, *tokens)  # all of it went into a thought kept apart
  if not isinstance(text, str):
    raise Failed(f"a completion without text (finish_reason {reason!r})")
  return Said(text, reason == "length", *tokens, _weights(text, first))


def _weights(text: str, choice: dict[str, Any]) -> tuple[float, ...] | None:
  """Probabilities of the levels where a reply names one; None where they are not told.

  They are those of the last token in whose place another number would be another level.
  A number that several tokens spell (with a space before it, or without) has the sum of
  theirs; one that is not among the likeliest that the server tells has 0.
  """
  level = levels.named(text)
  try:
    steps = choice["logprobs"]["content"]
    spelt = [str(step["token"]) for step in steps]
    likely = [
      {(str(one["token"]), float(one["logprob"])) for one in step["top_logprobs"]}
      for step in steps
    ]
  except (KeyError, TypeError, ValueError):
    return None
  if level is None:
    return None
  other = levels.COUNT + 1 - level
  for k in reversed(range(len(spelt))):
    before = "".join(spelt[:k])
    if spelt[k].strip() == str(level) and levels.named(f"{before}{other}") == other:
      weights = tuple(_spelt(number, likely[k]) for number in levels.NUMBERS)
      return weights if 0 < sum(weights) < math.inf else None
  return None


def _spelt(number: int, likely: Iterable[tuple[str, float]]) -> float:
  """Probability of the tokens that are this number."""
  return sum(
    math.exp(min(logprob, 0.0))
    for token, logprob in likely
    if token.strip() == str(number)
  )


def _count(usage: Any, name: str) -> int:
  """Tokens that a server says it has counted; 0 where it does not."""
  value = usage.get(name) if isinstance(usage, dict) else None
  return value if type(value) is int and value >= 0 else 0


def blocks(content: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Text and audio blocks of ours (text/messages.py) as an endpoint takes them.

  Raises:
    Refused: a sound cannot be read.
  """
  return [_block(each) for each in content]


def _block(block: dict[str, Any]) -> dict[str, Any]:
  if block["type"] == "text":
    return {"type": "text", "text": block["text"]}
  span = block.get("start_s"), block.get("end_s")
  try:
    samples_N = audio_io.read(block.get("path") or block["bytes"], *span)
  except audio_io.AudioError as error:
    raise Refused(f"its sound cannot be read: {error}") from error
  file = io.BytesIO()
  soundfile.write(file, samples_N, SAMPLE_RATE, format="WAV", subtype="PCM_16")
  data = base64.b64encode(file.getvalue()).decode()
  return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
