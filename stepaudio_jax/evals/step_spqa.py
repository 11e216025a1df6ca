"""Step-SPQA: eleven questions about a voice or a sound, asked in the clip itself.

550 clips, 50 a task (StepEval-Audio-Paralinguistic with answers as text; StepFun,
benchmarks of Step-Audio-R1.5). An answer that equals the label or the reference, but
for case, white space and final marks, is right; else a judge says YES or NO by the
task's rule.

A row of metadata.jsonl, beside audio/; the question is shown only where it is not in
the clip:

  {"id": "7", "audio_path": "audio/7.wav", "task_type": "gender", "label": "女性",
   "reference_answer": "说话人是女性。", "question": "…", "audio_only_input": true}

Where we differ: the judge's wording is ours, and it is shown the label too.
"""

from collections.abc import Sequence

from etils import epath

from stepaudio_jax.evals.parts import judgements, reading
from stepaudio_jax.evals.parts.items import Item, Score
from stepaudio_jax.judges import parsing
from stepaudio_jax.judges.questions import Question, Template
from stepaudio_jax.rewards.parts import answers

COLUMN = "Step-SPQA"
DEFAULTS = {"temperature": 0.7, "max_new_tokens": 4096, "batch_size": 16}
JUDGES = ("judge",)
# In the language of the references and most answers.
RULES = {
  "age": (
    "把两段话换算成年龄段，比较各自的中点：相差不超过 10 岁算一致。有一方看不出年龄，"
    "算不一致。"
  ),
  "emotions": (
    "按大类比较情绪。积极的（喜悦、热情、自豪、温柔、撒娇等）彼此算一致；平和的（平静、"
    "客观、沉思、怀旧等）彼此算一致；消极的（愤怒、不满、无奈、嘲讽、悲伤、恐惧、羞愧等）"
    "彼此算一致。戏谑、质问、幽默可以与平和或消极中相近的说法算一致；惊讶只与惊讶一致。"
  ),
  "event": (
    "比较听到的声音事件：同一类事件，或意思上明显相关的事件，算一致；拿不准算不一致。"
  ),
  "gender": "两段话都明确说的是同一性别才算一致；有一方看不出性别，算不一致。",
  "pitch": "比较说话人的音调高低，大致相同算一致。",
  "rhythm": (
    "比较说话的节奏，程度词和噪声不计。满足其一即算一致：都说平稳、流畅或自然；都提到停顿；"
    "都说有起伏、急促等变化。"
  ),
  "scene": (
    "比较声音所在的场景：说的是同一处地方即算一致，修饰语不计。只是大小范围上有交集的不算，"
    "如“户外”与“公园”。"
  ),
  "speed": (
    "把两段话各归入一级语速：快速、中快速、中速、中慢速、慢速。同级或相邻一级算一致；"
    "归不进去算不一致。"
  ),
  "vocalsound": (
    "比较发出的嗓音行为（咳嗽、笑、哭、清嗓子等）：只要有一种行为相同、同类或互相包含，"
    "即算一致；把词听成近音的同类行为也算。程度词和背景噪声不计。"
  ),
  "voice_styles": "比较说话的风格，整体上相近算一致。",
  "voice_tone": "比较说话人的音色，整体上相近算一致。",
}
_FORM = """\
下面有参考答案和一段待核对的回答，讲的是同一段录音。请判断两者是否一致。

判断规则：{rule}

参考标签：{label}
参考回答：{reference}
待核对的回答：{answer}

一致就写 YES，否则写 NO。只写这一个词。"""


_LATER = {name: f"{{{name}}}" for name in ("label", "reference", "answer")}
# A task's rule is part of its wording, so that the hash covers it.
TEMPLATES = {
  task: Template(_FORM.format(rule=rule, **_LATER)) for task, rule in RULES.items()
}


def read(folder: epath.PathLike) -> list[Item]:
  """metadata.jsonl beside audio/.

  Raises:
    ValueError: everything that is wrong with the files.
  """
  return reading.items(folder, judgements.FILES, _item)


def questions(item: Item, answer: str) -> list[Question]:
  """One, or none where the answer equals what is wanted."""
  if not judgements.given(answer) or exact(item, answer):
    return []
  return [
    TEMPLATES[item.groups["task"]].ask(
      label=item.row["label"].strip(),
      reference=item.row["reference_answer"].strip(),
      answer=answer,
    )
  ]


def score(
  item: Item, answer: str | None, verdicts: Sequence[str | None] | None
) -> Score:
  """1 or 0; None where there is no answer, or the judge's word cannot be read."""
  if not judgements.given(answer):
    return Score(None)
  said = answers.unwrapped(answer) or None
  if exact(item, answer):
    return Score(1.0, said, {"exact": True})
  yes = parsing.verdict(judgements.only(verdicts))
  return Score(None if yes is None else float(yes), said, {"exact": False})


def exact(item: Item, answer: str) -> bool:
  """Whether it equals the label or the reference, normalised (answers.key)."""
  wanted = (item.row["label"], item.row["reference_answer"])
  return answers.key(answers.unwrapped(answer)) in [answers.key(one) for one in wanted]


def _item(entry: reading.Entry) -> Item | None:
  task = entry.one_of("task_type", tuple(RULES))
  label, reference = entry.text("label"), entry.text("reference_answer")
  alone = entry.row.value.get("audio_only_input")
  if not isinstance(alone, bool):
    entry.fault(f"'audio_only_input' is {alone!r:.80}, not true or false")
  content = [entry.audio("audio_path")]
  if alone is False:  # then the question is not in the clip
    content.insert(0, {"type": "text", "text": entry.text("question").strip()})
  gold = f"{label.strip()} ({reference.strip()})"
  return entry.item(content, gold, groups={"task": task})
