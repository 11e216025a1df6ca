"""Dialogues about planned clips, with the truth that only gold listeners read.

One clip serves several dialogues. Answers are balanced within each task, and every
audio token count goes with every label (plan.py), so silence gives chance.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

from stepaudio_jax.data.world import phrases, words
from stepaudio_jax.data.world.deal import Dealer, dealer
from stepaudio_jax.data.world.plan import Take

_NO_THOUGHT = 0.2  # share of replies without a thought (empty-think rule)
_INSTRUCTED, _LASTING = 0.3, 0.5
_SYSTEM_SHARE = 0.2
_INVITING, _TONE_SHARE = 0.25, 0.7
_MULTI_TURN = 0.2  # of pitch, rate and emotion; memory always is
_MEMORY_PER_CLIP = 0.3


@dataclasses.dataclass(frozen=True)
class Turn:
  """What the human sends (a clip or none, and text) and the reply it deserves.

  `task` and `label` are None where nothing is asked.
  """

  take: Take | None
  text: str
  think: str | None
  reply: str
  task: str | None = None
  label: str | None = None


@dataclasses.dataclass(frozen=True)
class Instruction:
  kind: str | None = None  # a key of phrases.INSTRUCTIONS
  lasting: bool = False  # given in the first turn, binding for all


def dialogues(
  split: str,
  takes: Sequence[Take],
  paths: Mapping[str, str],
  seed: int,
  per_task: int | None = None,
) -> tuple[list[dict], list[dict]]:
  """Dialogue rows and, in the same order, their truth rows.

  Args:
    paths: clip id → path of its audio as written into the rows.
    per_task: this many of each task (rounded up to whole rounds of the labels);
      None gives every clip to every task it serves, answers trimmed to balance.
  """
  writer = _Writer(split, paths, dealer(seed, 2, ("train", "heldout").index(split)))
  for task in words.LABELS:
    for take in _balanced(takes, task, per_task, writer.deal):
      writer.add(task, _labelled(task, take, writer.deal), take.labels[task])
  for take in _with_digits(takes, per_task, writer.deal):
    label = take.fact("digits")
    writer.add("digits", [_asked("digits", take, label, writer.deal)], label)
  count = per_task or round(_MEMORY_PER_CLIP * len(takes))
  for first, slot, second in _remembered(takes, count, writer.deal):
    turns = _memory(first, slot, second, writer.deal)
    writer.add("memory", turns, first.fact(slot), slot)
  order = writer.deal.rng.permutation(len(writer.rows))
  return [writer.rows[i] for i in order], [writer.truths[i] for i in order]


class _Writer:
  """Collects rows and truths, dealing system prompts, instructions and thoughts."""

  def __init__(self, split: str, paths: Mapping[str, str], deal: Dealer):
    self.split, self.paths, self.deal = split, paths, deal
    self.rows: list[dict] = []
    self.truths: list[dict] = []
    self._count: dict[str, int] = defaultdict(int)

  def add(self, task: str, turns: list[Turn], label: str, slot: str | None = None):
    row_id = f"{self.split}-{task}-{self._count[task]:05d}"
    self._count[task] += 1
    instruction = _instruction(self.deal)
    choices = words.LABELS.get(task) or words.FACTS.get(slot)
    answered = {"answer": label}
    if choices:
      answered["choices"] = list(choices)
    clips = [turn.take for turn in turns if turn.take is not None]
    meta = {"task": task, "clips": [take.id for take in clips], "turns": len(turns)}
    messages = self._messages(turns, instruction)
    row = {"id": row_id, "messages": messages, **answered}
    rubric = _rubric(task, instruction.kind)
    if rubric:
      row["rubric"] = rubric
    self.rows.append({**row, "meta": meta})
    last = next((take for take in reversed(clips)), None)
    truth = {
      "id": row_id,
      "task": task,
      **answered,
      "slot": slot,
      "instruction": instruction.kind,
      "emotion": last.labels.get("emotion", "neutral"),
      "facts": [
        {"slot": name, "value": value, "clip": take.id}
        for take in clips
        for name, value in take.facts
      ],
      "clips": [clip_truth(take) for take in clips],
      "turns": len(turns),
      "simulated": True,
    }
    self.truths.append(truth)

  def _messages(self, turns: list[Turn], instruction: Instruction) -> list[dict]:
    messages = []
    if self.deal.chance(_SYSTEM_SHARE):
      system = self.deal.deal(phrases.SYSTEM, "system")
      messages.append({"role": "system", "content": [_text(system)]})
    for place, turn in enumerate(turns):
      last = place == len(turns) - 1
      text = turn.text
      if instruction.kind and (place == 0 if instruction.lasting else last):
        wording = (
          phrases.LASTING_INSTRUCTIONS if instruction.lasting else phrases.INSTRUCTIONS
        )
        text = f"{text} {wording[instruction.kind]}"
      content = [_text(text)]
      if turn.take is not None:
        content.insert(0, {"type": "audio", "path": self.paths[turn.take.id]})
      messages.append({"role": "human", "content": content})
      bound = instruction.kind if last or instruction.lasting else None
      messages.append(self._reply(turn, bound))
    return messages

  def _reply(self, turn: Turn, instruction: str | None) -> dict:
    text = self._worded(turn, instruction)
    message = {"role": "assistant", "content": [_text(text)]}
    if turn.think is not None and not self.deal.chance(_NO_THOUGHT):
      message["think"] = turn.think
    return message

  def _worded(self, turn: Turn, instruction: str | None) -> str:
    if instruction == "brief" and turn.label is not None:
      return phrases.capital(turn.label) + "."
    parts = [turn.reply]
    if turn.task == "emotion" and self.deal.chance(_TONE_SHARE):
      parts.append(self.deal.deal(phrases.TONES[turn.label], "tone", turn.label))
    invited = turn.task is not None and self.deal.chance(_INVITING)
    if instruction == "question" or (invited and len(parts) == 1):
      parts.append(self.deal.deal(phrases.INVITATIONS, "invitation"))
    if instruction == "sure":
      parts.insert(0, "Sure.")
    return " ".join(parts)


def _text(text: str) -> dict:
  return {"type": "text", "text": text}


def clip_truth(take: Take) -> dict:
  """Everything known of a clip, as JSON."""
  return {
    "id": take.id,
    "kind": take.kind,
    "transcript": take.transcript,
    "speakers": words.SPEAKERS[len(take.voices) - 1],
    "emotion": "neutral",
    **take.labels,
    "utterances": [dataclasses.asdict(u) for u in take.clip.utterances],
    "duration_s": take.clip.duration_s,
    "noise_snr_db": take.clip.noise_snr_db,
    "reverb_s": take.clip.reverb_s,
  }


def _instruction(deal: Dealer) -> Instruction:
  if not deal.chance(_INSTRUCTED):
    return Instruction()
  kind = deal.deal(tuple(phrases.INSTRUCTIONS), "instruction")
  lasting = kind in phrases.LASTING_INSTRUCTIONS and deal.chance(_LASTING)
  return Instruction(kind, lasting)


def _rubric(task: str, instruction: str | None) -> list[dict]:
  """What a judge may check, for rows with an instruction or a mood; else nothing."""
  lines = [phrases.RUBRICS[instruction]] if instruction else []
  lines += [phrases.RUBRICS["tone"]] if task == "emotion" else []
  return [{"text": line, "weight": 1.0} for line in lines]


def _asked(
  task: str, take: Take, label: str, deal: Dealer, question: str | None = None
) -> Turn:
  """One question about one clip, with thought and answer."""
  if task == "digits":
    think = deal.deal(phrases.DIGIT_THOUGHTS, "thought", task).format(label)
  else:
    think = deal.deal(phrases.THOUGHTS[task, label], "thought", task, label)
  template = deal.deal(phrases.ANSWERS[task], "answer", task, label)
  question = question or deal.deal(phrases.QUESTIONS[task], "question", task, label)
  reply = phrases.answer(template, task, label)
  return Turn(take, question, think, reply, task, label)


def _labelled(task: str, take: Take, deal: Dealer) -> list[Turn]:
  """The turns of a pitch, rate, speakers or emotion dialogue; some follow another."""
  turn = _asked(task, take, take.labels[task], deal)
  if task == "speakers" or not deal.chance(_MULTI_TURN):
    return [turn]
  if task == "emotion":
    said, reply = deal.deal(phrases.OPENINGS, "opening")
    return [Turn(None, said, None, reply), turn]
  other = "rate" if task == "pitch" else "pitch"
  before = _asked(other, take, take.labels[other], deal)
  question = deal.deal(phrases.FOLLOW_UPS[task], "follow-up", task)
  after = _asked(task, take, take.labels[task], deal, question)
  return [before, dataclasses.replace(after, take=None)]


def _memory(first: Take, slot: str, second: Take, deal: Dealer) -> list[Turn]:
  """Told in one clip, something else in the next, then the question."""
  telling = deal.deal(phrases.TELLINGS, "telling")
  noted = deal.deal(phrases.ACKNOWLEDGEMENTS, "acknowledgement")
  task = deal.deal(tuple(second.labels), "between", second.kind)
  value = first.fact(slot)
  think = deal.deal(phrases.MEMORY_THOUGHTS, "memory thought").format(first.transcript)
  template = deal.deal(phrases.ANSWERS["memory"], "answer", "memory", slot)
  question = deal.deal(phrases.MEMORY_QUESTIONS[slot], "question", "memory", slot)
  reply = phrases.answer(template, "memory", value)
  return [
    Turn(first, telling, None, noted),
    _asked(task, second, second.labels[task], deal),
    Turn(None, question, think, reply, "memory", value),
  ]


def _balanced(
  takes: Sequence[Take], task: str, per_task: int | None, deal: Dealer
) -> list[Take]:
  """Equally many takes of each label of `task`, in a drawn order."""
  groups = {
    label: [take for take in takes if take.labels.get(task) == label]
    for label in words.LABELS[task]
  }
  fewest = min(map(len, groups.values()))
  wanted = fewest if per_task is None else -(-per_task // len(groups))
  if fewest < wanted:
    raise ValueError(f"{task} needs {wanted} clips a label, the plan has {fewest}")
  return deal.shuffled([take for group in groups.values() for take in group[:wanted]])


def _with_digits(
  takes: Sequence[Take], per_task: int | None, deal: Dealer
) -> list[Take]:
  found = [take for take in takes if take.fact("digits")]
  if per_task is not None and len(found) < per_task:
    raise ValueError(f"digits needs {per_task} clips, the plan has {len(found)}")
  return deal.shuffled(found)[:per_task]


def _remembered(takes: Sequence[Take], count: int, deal: Dealer):
  """(clip told first, slot asked, clip in between), slots and values in turn."""
  told = defaultdict(lambda: defaultdict(list))
  for take in takes:
    if len(take.facts) == 1:
      slot, value = take.facts[0]
      told[slot][value].append(take)
  slots = tuple(slot for slot in words.SLOTS if slot in told)
  others = {slot: [t for t in takes if t.fact(slot) is None] for slot in slots}
  for number in range(count):
    slot = slots[number % len(slots)]
    value = deal.deal(tuple(told[slot]), "remembered", slot)
    first = deal.deal(tuple(told[slot][value]), "told", slot, value)
    yield first, slot, deal.deal(tuple(others[slot]), "between", slot)
