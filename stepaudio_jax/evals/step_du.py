"""Step-Dialogue-Understanding: a speaker asks about their own voice; 87 clips.

A judge gives 0, 0.5 or 1 against a reference (StepFun, benchmarks of Step-Audio-R1.5).
In a reference ";" separates points that are all required and "/" equivalents; what
follows a colon only explains.

A row of metadata.jsonl, beside audio/; the reference is the field of the long name:

  {"id": "7", "audio_path": "audio/7.wav", "input_question_text": "我听起来累吗？",
   "recording_requirement_or_qa_category": "疲惫/累", "secondary_dimension": "情绪", …}

Where we differ: the judge's wording is ours, and other scores than 0, 0.5 and 1 are not
read.
"""

import re
from collections.abc import Sequence

from etils import epath

from stepaudio_jax.evals.parts import judgements, reading
from stepaudio_jax.evals.parts.items import Item, Score
from stepaudio_jax.judges import parsing
from stepaudio_jax.judges.questions import Question, Template
from stepaudio_jax.rewards.parts import answers

COLUMN = "Step-DU"
DEFAULTS = {"temperature": 0.7, "max_new_tokens": 4096, "batch_size": 16}
JUDGES = ("judge",)
REFERENCE = "recording_requirement_or_qa_category"
# In the language of the questions, the references and most answers.
JUDGE = Template(
  system="你负责核对关于说话人声音的回答。只看结论是否与要点相符，不看文采和篇幅。",
  text="""\
考查方面：{dimension}
问题：{question}
必须答出的要点（同一要点下用“或”隔开的说法等价，答出任意一个即可）：
{points}

待核对的回答：
{answer}

打分办法：要点全部答出且没有与之矛盾的内容，得 1；只答出一部分要点，或答出要点但又夹杂\
矛盾的内容，得 0.5；没有答出任何要点或结论相反，得 0。意思相同而用词不同，算答出。
只输出一个 JSON 对象：{{"score": 0 或 0.5 或 1, "reason": "一句话理由"}}""",
)
_EXPLAINED = re.compile(r"[:：]")
_POINTS = re.compile(r"[;；]")
_EQUIVALENTS = re.compile(r"[/／]")


def read(folder: epath.PathLike) -> list[Item]:
  """metadata.jsonl beside audio/.

  Raises:
    ValueError: everything that is wrong with the files.
  """
  return reading.items(folder, judgements.FILES, _item)


def questions(item: Item, answer: str) -> list[Question]:
  if not judgements.given(answer):
    return []
  wanted = [" 或 ".join(equal) for equal in points(item.row[REFERENCE])]
  listed = "\n".join(f"{number}. {one}" for number, one in enumerate(wanted, 1))
  return [
    JUDGE.ask(
      dimension=item.groups["secondary_dimension"],
      question=item.row["input_question_text"].strip(),
      points=listed,
      answer=answer,
    )
  ]


def score(
  item: Item, answer: str | None, verdicts: Sequence[str | None] | None
) -> Score:
  """The judge's 0, 0.5 or 1; None where there is no answer or it cannot be read."""
  if not judgements.given(answer):
    return Score(None)
  value = parsing.half_points(judgements.only(verdicts))
  said = answers.unwrapped(answer) or None
  return Score(value, said, {"points": points(item.row[REFERENCE])})


def points(reference: str) -> list[list[str]]:
  """The required points of a reference, each with its equivalents."""
  core = _EXPLAINED.split(reference, maxsplit=1)[0]
  parts = [_EQUIVALENTS.split(part) for part in _POINTS.split(core)]
  found = [[one.strip() for one in equal if one.strip()] for equal in parts]
  return [equal for equal in found if equal]


def _item(entry: reading.Entry) -> Item | None:
  question = entry.text("input_question_text").strip()
  reference = entry.text(REFERENCE).strip()
  if reference and not points(reference):
    entry.fault(f"{REFERENCE!r} is {reference!r}, which names no point")
  content = [{"type": "text", "text": question}, entry.audio("audio_path")]
  groups = entry.groups(("secondary_dimension",), ("primary_dimension",))
  return entry.item(content, reference, groups=groups)
