"""Which of two replies is better: the question as a judge is asked it and learns it.

One wording for judges at work (judges/comparing.py) and in training
(data/sets/judgement.py), so that a model of ours is asked what it was taught. The
conversation is quoted in one human turn, its sounds where they were heard.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_jax.core import levels
from stepaudio_jax.text import messages as messages_lib

SYSTEM = "You compare two replies of a voice assistant."
HEAD = "The conversation:\n\n"
TAIL = """

Reply A:
{first}

Reply B:
{second}

{rubric}Which reply is better{about}? Give your reasons, then end with the number of \
one level: """ + ", ".join(
  f"{number} {words}"
  for number, words in zip(levels.NUMBERS, levels.WORDS, strict=True)
)
RUBRIC = "What a good reply does, each with its weight:\n"
ABOUT = " in {dimension} alone"
WORDING = HEAD + "{history}" + TAIL  # known by its hash
OVERALL = "overall"
UNHEARD = "[audio]"  # where a judge cannot hear

Block = dict[str, Any]


def content(
  history: Sequence[Mapping[str, Any]],
  first: str,
  second: str,
  rubric: Sequence[Mapping[str, Any]] = (),
  dimension: str = OVERALL,
) -> list[Block]:
  """The human turn: text blocks, and the audio blocks of the conversation.

  Args:
    history: messages, the last one not the assistant's.
    first, second: answers A and B, without thoughts.
    rubric: {"text", "weight"} each; none for a plain comparison.
    dimension: the one thing that counts; OVERALL is everything.
  """
  about = "" if dimension == OVERALL else ABOUT.format(dimension=words(dimension))
  items = "".join(f"- {item['text']} ({item['weight']:g})\n" for item in rubric)
  tail = TAIL.format(
    first=first.strip(),
    second=second.strip(),
    rubric=f"{RUBRIC}{items}\n" if items else "",
    about=about,
  )
  return _joined([_text(HEAD), *_quoted(history), _text(tail)])


def unheard(blocks: Sequence[Block]) -> str:
  """The same for a judge that cannot hear."""
  return "".join(b["text"] if b["type"] == "text" else UNHEARD for b in blocks)


def words(dimension: str) -> str:
  """A dimension's name as people write it."""
  return dimension.replace("_", " ")


def _quoted(history: Sequence[Mapping[str, Any]]) -> list[Block]:
  out = []
  for k, message in enumerate(messages_lib.normalise(history, "a conversation")):
    out.append(_text(f"{'' if k == 0 else chr(10)}{message['role']}: "))
    for place, block in enumerate(message["content"]):
      out += [_text(" "), block] if place else [block]
  return out


def _text(text: str) -> Block:
  return {"type": "text", "text": text}


def _joined(blocks: Sequence[Block]) -> list[Block]:
  """Texts that touch are one block."""
  out: list[Block] = []
  for block in blocks:
    if block["type"] == "text" and out and out[-1]["type"] == "text":
      out[-1] = _text(out[-1]["text"] + block["text"])
    else:
      out.append(block)
  return out
