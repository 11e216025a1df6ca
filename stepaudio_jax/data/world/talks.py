"""Long dialogues with one speaker: facts are asked for later, rules stay, moods turn.

Each human turn is speech by the same voice in the same room, and a question in text.
Over the turns of one dialogue

* three facts (name, city, colour) are told, the first in turn 0, and asked for in later
  turns, none twice before every other that was told: memory;
* turn 0 gives an instruction that binds every reply: instruction retention;
* the mood of the voice stays for one to three turns, then turns into another, at least
  once: continuity of emotion.

A turn asks either for a fact or for the mood; over the dialogues both are asked equally
often in every turn but the first, which has nothing to remember. What is not a fact is
digits, which nobody asks for. Truth rows are those of tasks.py, one a turn, for
gold.score. Nothing of this is trained on.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

from stepaudio_jax.audio import speech
from stepaudio_jax.audio.speech import Clip
from stepaudio_jax.data.world import build, phrases, tasks, voices, words
from stepaudio_jax.data.world.deal import Dealer, dealer
from stepaudio_jax.data.world.plan import DURATIONS_S, Take

DIALOGUES, TRUTH = "long-talks.jsonl", "long-talks-truth.jsonl"
SPEECH = "long-talks-speech"
FEWEST_TURNS = 2
_PURPOSE = 17  # a dealer of its own: the rest of the world stays as it is
_MOOD_TURNS = (1, 2, 3)  # how long a mood lasts
_NOISY_SHARE, _SNR_DB = 0.4, (15.0, 30.0)
_REVERBERANT_SHARE, _REVERB_S = 0.3, (0.15, 0.35)
# Of a fact that was not told in turn 0; those of phrases.py say "at the start".
_LATER_QUESTIONS = {
  "name": ("Which name did I say?", "What was the name?"),
  "city": ("Which city did I say?", "What was the city?"),
  "colour": ("Which colour did I say?", "What was the colour?"),
}
_MEMORY_THOUGHTS = ("Earlier I heard {}.", "The voice told me {}.")


@dataclasses.dataclass(frozen=True)
class Turn:
  """One turn of the human.

  Attributes:
    slot: of the fact that is asked for; None where it is the mood.
    told: the turn in which that fact was told.
  """

  take: Take
  text: str
  slot: str | None
  told: int | None


@dataclasses.dataclass(frozen=True)
class Talk:
  """One dialogue; `instruction` is a key of phrases.LASTING_INSTRUCTIONS."""

  id: str
  instruction: str
  turns: tuple[Turn, ...]


def write(
  folder: str | os.PathLike,
  *,
  dialogues: int,
  turns: int,
  seed: int = 0,
  processes: int = 2,
  progress: bool = False,
) -> tuple[pathlib.Path, pathlib.Path]:
  """Speaks and writes long-talks.jsonl and long-talks-truth.jsonl into a folder.

  The same arguments give the same bytes; a killed run continues; a folder with other
  long dialogues is an error.

  Args:
    dialogues: how many, an even number: half of them ask for facts where the others
      ask for moods.
    processes: speech children at a time.
  """
  talks = planned(dialogues, turns, seed)
  folder = pathlib.Path(folder)
  clips = [turn.take.clip for talk in talks for turn in talk.turns]
  speech.speak_shards(
    clips,
    folder / SPEECH,
    shard_size=build.SHARD_SIZE,
    processes=processes,
    progress=progress,
  )
  paths = {
    clip.id: f"{SPEECH}/{place // build.SHARD_SIZE:05d}/{clip.id}.flac"
    for place, clip in enumerate(clips)
  }
  truths = [truth(talk) for talk in talks]
  rows = [
    row(talk, one["turns"], paths, seed)
    for talk, one in zip(talks, truths, strict=True)
  ]
  return (
    build.write_jsonl(folder / DIALOGUES, rows),
    build.write_jsonl(folder / TRUTH, truths),
  )


def planned(dialogues: int, turns: int, seed: int) -> list[Talk]:
  """The plan of every dialogue; nothing is spoken.

  Raises:
    ValueError: an odd number of dialogues or none, or fewer than two turns.
  """
  if dialogues < 2 or dialogues % 2:
    raise ValueError(f"{dialogues=} must be an even number, at least 2")
  if turns < FEWEST_TURNS:
    raise ValueError(f"{turns=} must be at least {FEWEST_TURNS}")
  deal = dealer(seed, _PURPOSE)
  return [_talk(number, turns, deal) for number in range(dialogues)]


def _talk(number: int, turns: int, deal: Dealer) -> Talk:
  name = f"talk-{number:05d}"
  voice = deal.deal(voices.VOICES, "voice")
  noise = round(float(deal.rng.uniform(*_SNR_DB)), 1)
  reverb = round(float(deal.rng.uniform(*_REVERB_S)), 2)
  room = {
    "noise_snr_db": noise if deal.chance(_NOISY_SHARE) else None,
    "reverb_s": reverb if deal.chance(_REVERBERANT_SHARE) else None,
  }
  instruction = deal.deal(tuple(phrases.LASTING_INSTRUCTIONS), "instruction")
  slots = deal.shuffled(tuple(words.FACTS))
  told = [(slots[k] if k < len(slots) else "digits") for k in range(turns)]
  made, asked = [], dict.fromkeys(slots, 0)
  for k, mood in enumerate(_moods(turns, deal)):
    # Dialogues go in pairs: where one asks for a fact the other asks for the mood.
    remembers = k > 0 and (k + number) % 2 == 1
    slot = _rarest(slots[:k], asked, deal) if remembers else None
    take = _take(f"{name}-{k:02d}", told[k], voice, mood, room, deal)
    text = _text(k, slot, told, instruction, deal)
    made.append(Turn(take, text, slot, None if slot is None else told.index(slot)))
  return Talk(name, instruction, tuple(made))


def _moods(turns: int, deal: Dealer) -> list[str]:
  """The mood of each turn; it changes at least once."""
  moods: list[str] = []
  while len(moods) < turns:
    others = tuple(m for m in words.EMOTIONS if not moods or m != moods[-1])
    lasts = deal.deal(_MOOD_TURNS, "mood lasts")
    if not moods:
      lasts = min(lasts, turns - 1)
    moods += [deal.deal(others, "mood", moods[-1] if moods else None)] * lasts
  return moods[:turns]


def _rarest(slots: list[str], asked: dict[str, int], deal: Dealer) -> str:
  """One of the facts told so far that was asked least often; it is counted."""
  fewest = min(asked[slot] for slot in slots)
  slot = deal.shuffled([slot for slot in slots if asked[slot] == fewest])[0]
  asked[slot] += 1
  return slot


def _take(
  clip_id: str, slot: str, voice: str, mood: str, room: dict, deal: Dealer
) -> Take:
  if slot == "digits":
    length = deal.deal(words.DIGIT_LENGTHS, "length")
    strings = words.digit_strings("heldout", length)
    value = text = strings[int(deal.rng.integers(len(strings)))]
  else:
    value = deal.deal(words.FACTS[slot], "value", slot)
    text = deal.deal(words.CARRIERS[slot], "carrier", slot).format(value)
  clip = Clip(
    id=clip_id,
    utterances=(voices.styled(text, voice, mood, deal.rng),),
    gap_s=0.0,
    duration_s=deal.deal(DURATIONS_S, "duration", mood),
    seed=int(deal.rng.integers(2**31)),
    **room,
  )
  return Take(clip, "emotion", ((slot, value),), {"emotion": mood})


def _text(
  k: int, slot: str | None, told: list[str], instruction: str, deal: Dealer
) -> str:
  if slot is None:
    asked = deal.deal(phrases.QUESTIONS["emotion"], "question", "emotion")
  else:
    forms = phrases.MEMORY_QUESTIONS if slot == told[0] else _LATER_QUESTIONS
    asked = deal.deal(forms[slot], "question", slot, slot == told[0])
  if k:
    return asked
  telling = deal.deal(phrases.TELLINGS, "telling")
  return f"{asked} {telling} {phrases.LASTING_INSTRUCTIONS[instruction]}"


def truth(talk: Talk) -> dict:
  """What gold listeners read: one truth row of tasks.py for each turn, and

  `distance`: turns since the fact was told that is asked for, or None; `changed`:
  whether the mood is another than in the turn before.
  """
  moods = [turn.take.labels["emotion"] for turn in talk.turns]
  return {
    "id": talk.id,
    "instruction": talk.instruction,
    "voice": talk.turns[0].take.voices[0],
    "turns": [
      {
        **_turn_truth(talk, k),
        "distance": None if turn.told is None else k - turn.told,
        "changed": k > 0 and moods[k] != moods[k - 1],
      }
      for k, turn in enumerate(talk.turns)
    ],
    "simulated": True,
  }


def _turn_truth(talk: Talk, k: int) -> dict:
  turn, heard = talk.turns[k], [turn.take for turn in talk.turns[: k + 1]]
  if turn.slot is None:
    asked = {"task": "emotion", "answer": turn.take.labels["emotion"]}
  else:
    asked = {"task": "memory", "answer": heard[turn.told].fact(turn.slot)}
  choices = words.EMOTIONS if turn.slot is None else words.FACTS[turn.slot]
  return {
    "id": f"{talk.id}#{k}",
    **asked,
    "choices": list(choices),
    "slot": turn.slot,
    "instruction": talk.instruction,
    "emotion": turn.take.labels["emotion"],
    "facts": [
      {"slot": name, "value": value, "clip": take.id}
      for take in heard
      for name, value in take.facts
    ],
    "clips": [tasks.clip_truth(turn.take)],
    "turns": k + 1,
    "simulated": True,
  }


def row(talk: Talk, truths: list[dict], paths: Mapping[str, str], seed: int) -> dict:
  """The dialogue row, with a reply to every turn that gold finds without fault."""
  deal = dealer(seed, _PURPOSE, int(talk.id.rpartition("-")[2]))
  messages = []
  for turn, one in zip(talk.turns, truths, strict=True):
    heard = {"type": "audio", "path": paths[turn.take.id]}
    asked = [heard, {"type": "text", "text": turn.text}]
    think, text = reply(one, deal)
    answer = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    messages += [{"role": "human", "content": asked}, {**answer, "think": think}]
  clips = [turn.take.id for turn in talk.turns]
  meta = {"task": "long talk", "clips": clips, "turns": len(talk.turns)}
  return {"id": talk.id, "messages": messages, "meta": meta}


def reply(truth: dict, deal: Dealer) -> tuple[str, str]:
  """(thought, answer) to the turn of a truth row: right, kind and obedient."""
  task, label = truth["task"], truth["answer"]
  if task == "memory":
    think = deal.deal(_MEMORY_THOUGHTS, "thought", task).format(label)
  else:
    think = deal.deal(phrases.THOUGHTS[task, label], "thought", label)
  template = deal.deal(phrases.ANSWERS[task], "answer", task)
  parts = [
    phrases.answer(template, task, label),
    deal.deal(phrases.TONES[truth["emotion"]], "tone", truth["emotion"]),
    deal.deal(phrases.INVITATIONS, "invitation"),
  ]
  return think, " ".join((["Sure."] if truth["instruction"] == "sure" else []) + parts)
