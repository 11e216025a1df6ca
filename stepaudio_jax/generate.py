r"""Replies of a checkpoint: to recordings and a question, or to a file of dialogues.

  python -m stepaudio_jax.generate --checkpoint runs/sft --audio question.wav \
    --prompt "How fast do I speak?"
  python -m stepaudio_jax.generate --checkpoint runs/sft --jsonl dialogues.jsonl \
    --out rollouts.jsonl --samples 8 --keep 3..6

The first prints thought and answer; the recordings come before the text in one human
turn. The second asks for the last reply of every dialogue, several times, and writes
rollout rows. The same seed gives the same replies in batches of any size.

With --keep the dialogues need answers: rollout rows have {"reward": {"accuracy"}}, and
behind them stands a row {"id", "passes", "n", "kept"} for each dialogue: its id, how
many of its n replies are right, and whether that is within the bounds, both included
(R1 §4.1 trains on prompts where 3 to 6 of 8 replies are right).
"""

import argparse
import collections
import dataclasses
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import jax
from etils import epath

from stepaudio_jax import workdirs
from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.core import entry, errors, files, storage
from stepaudio_jax.data import features, schema
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.data.schema import Audio, Dialogue
from stepaudio_jax.evals.parts import prompts as prompts_lib
from stepaudio_jax.evals.parts.prompts import Prompts
from stepaudio_jax.evals.parts.replies import Options, Reply, replies
from stepaudio_jax.rewards import accuracy

OPTIONS = {"batch_size": 16, "max_new_tokens": 512, "temperature": 0.7}


def run(
  *,
  checkpoint: epath.PathLike,
  audio: Sequence[epath.PathLike] = (),
  prompt: str = "",
  system: str = "",
  thinking: bool = True,
  **options: Any,
) -> Reply:
  """The reply to one human turn.

  Args:
    checkpoint: a workdir (its newest step) or one of its step folders.
    audio: recordings in any format; longer ones are cut every 25 s.
    **options: of replies.Options; OPTIONS hold for the others.

  Raises:
    AudioError: a recording cannot be used.
    FileNotFoundError: no checkpoint.
    ValueError: nothing is asked, impossible options, or a prompt that is too long.
  """
  chosen = Options(**OPTIONS | options | {"batch_size": 1, "samples": 1})
  talk = _dialogue(audio, prompt, system)
  for clip in talk.audio:
    features.mels(clip)  # whatever is wrong with it shows before a model is loaded
  model = _loaded(checkpoint, chosen)
  with tempfile.TemporaryDirectory() as cache:
    asked = prompts_lib.prompts(
      model,
      [talk],
      _content_key,
      cache,
      max_tokens=chosen.room(model.size.max_positions),
      thinking=thinking,
      encode_batch=1,
    )
    (reply,) = replies(model, asked, chosen)
  return reply


def rollouts(
  *,
  checkpoint: epath.PathLike,
  jsonl: epath.PathLike,
  out: epath.PathLike,
  cache: epath.PathLike | None = None,
  keep: tuple[int, int] | None = None,
  thinking: bool = True,
  **options: Any,
) -> dict[str, int]:
  """Samples replies to a file of dialogues and writes a rollout row of each.

  Args:
    jsonl: rows of the dialogue schema; a last turn of the assistant is asked anew.
    out: replaced when all rows are there.
    cache: of encoder frames; by default a temporary folder.
    keep: fewest and most right replies of a dialogue that is kept; every dialogue
      then gets a row too (the module's text).

  Returns:
    How many prompts there are, how many failed (too long), how many rollout rows were
    written, how many of these were cut short by max_new_tokens and, with `keep`, how
    many dialogues are kept.

  Raises:
    ValueError: impossible options or bounds, a wrong row or, with `keep`, a dialogue
      without an answer.
  """
  chosen = Options(**OPTIONS | options)
  if keep and not 0 <= keep[0] <= keep[1] <= chosen.samples:
    raise ValueError(f"keep={keep} is not within 0..samples={chosen.samples}")
  step_folder = storage.step_folder(checkpoint)
  corpus = prompts_lib.corpus(jsonl)
  talks = prompts_lib.dialogues(corpus)
  for talk in talks if keep else ():
    accuracy.check(talk.row)
  model = _loaded(step_folder, chosen)
  with tempfile.TemporaryDirectory() as folder, files.aside(out) as partial:
    asked = prompts_lib.prompts(
      model,
      talks,
      corpus.key,
      cache or folder,
      max_tokens=chosen.room(model.size.max_positions),
      thinking=thinking,
    )
    counts = {"prompts": len(asked.fitting) + len(asked.failed)}
    counts |= {"failed": len(asked.failed), "rows": 0, "truncated": 0}
    rights = collections.Counter()
    with partial.open("w") as file:
      for reply in replies(model, asked, chosen):
        row = rollout_row(reply, int(step_folder.name), chosen, thinking)
        if keep:
          right = _accuracy(reply, thinking)
          row["reward"] = {"accuracy": right}
          rights[reply.prompt.id] += int(right)
        _write(file, row)
        counts["rows"] += 1
        counts["truncated"] += reply.truncated
      if keep:
        summaries = kept_rows(asked, rights, chosen.samples, keep)
        for row in summaries:
          _write(file, row)
        counts["kept"] = sum(row["kept"] for row in summaries)
  return counts


def kept_rows(
  asked: Prompts, rights: Mapping[str, int], samples: int, keep: tuple[int, int]
) -> list[dict[str, Any]]:
  """A row of each dialogue; one that could not be asked has no replies.

  Args:
    rights: right replies by the id of their prompt.
  """
  low, high = keep
  rows = [
    {"id": prompt.dialogue_id, "passes": rights[prompt.id], "n": samples}
    for prompt in asked.fitting
  ]
  rows = [{**row, "kept": low <= row["passes"] <= high} for row in rows]
  nothing = {"passes": 0, "n": 0, "kept": False}
  return rows + [{"id": prompt.dialogue_id, **nothing} for prompt, _ in asked.failed]


def _accuracy(reply: Reply, thinking: bool) -> float:
  """1 if right; a prompt that holds an empty thought is read with it."""
  text = reply.text if thinking else f"\n</think>\n{reply.text}"
  return accuracy.score(reply.prompt.row, text)


def _write(file: TextIO, row: dict[str, Any]) -> None:
  file.write(json.dumps(row, ensure_ascii=False) + "\n")


def rollout_row(
  reply: Reply, step: int, options: Options, thinking: bool
) -> dict[str, Any]:
  """The rollout schema, as far as it goes without rewards."""
  return {
    "prompt_id": reply.prompt.id,
    "dialogue_id": reply.prompt.dialogue_id,
    "sample": reply.sample,
    "token_ids": reply.token_ids,
    "logprobs": reply.logprobs,
    "text": reply.text,
    "think": reply.think,
    "answer": reply.answer,
    "truncated": reply.truncated,
    "thinking": thinking,
    "temperature": options.temperature,
    "seed": options.seed,
    "step": step,
    "policy_version": step,
  }


def _loaded(folder: epath.PathLike, options: Options) -> workdirs.Model:
  """The model, on the device; that it has room for such replies is checked first."""
  options.room(workdirs.load_size(folder).max_positions)
  entry.compilation_cache(storage.step_folder(folder).parent.parent / "xla_cache")
  model = workdirs.load_model(folder)
  return dataclasses.replace(model, params=jax.device_put(model.params))


def _dialogue(audio: Sequence[epath.PathLike], prompt: str, system: str) -> Dialogue:
  paths = [str(files.absolute(path)) for path in audio]
  blocks = [{"type": "audio", "path": path} for path in paths]
  blocks += [{"type": "text", "text": prompt}] if prompt else []
  if not blocks:
    raise ValueError("nothing is asked: give recordings, text, or both")
  messages = [{"role": "system", "content": system}] if system else []
  messages.append({"role": "human", "content": blocks})
  row = {"id": "the question", "messages": messages}
  return schema.dialogue(Row(row, "the command line", os.getcwd()))


def _content_key(audio: Audio) -> str:
  return audio_io.content_key(audio.source, name=audio.name)


def bounds(text: str) -> tuple[int, int]:
  """(3, 6) of "3..6"."""
  found = re.fullmatch(r"(\d+)\.\.(\d+)", text)
  if not found:
    raise argparse.ArgumentTypeError(f"{text!r} is not LOW..HIGH, such as 3..6")
  return int(found[1]), int(found[2])


def parser() -> argparse.ArgumentParser:
  out = argparse.ArgumentParser(
    prog="python -m stepaudio_jax.generate",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  unset = argparse.SUPPRESS
  add = out.add_argument
  add("--checkpoint", required=True, metavar="DIR", help="a workdir or a step of it")
  add("--nothinking", action="store_false", dest="thinking", help="answer at once")
  add = out.add_argument_group("one reply").add_argument
  add("--audio", nargs="+", default=unset, metavar="FILE", help="heard before the text")
  add("--prompt", default=unset, metavar="TEXT", help="what the human writes")
  add("--system", default=unset, metavar="TEXT", help="the turn before the human's")
  add = out.add_argument_group("rollout rows").add_argument
  add("--jsonl", default=unset, metavar="FILE", help="dialogues, one a line")
  add("--out", default=unset, metavar="FILE", help="of the rows; replaced")
  add("--samples", type=int, default=unset, metavar="K", help="of each; else 1")
  add("--keep", type=bounds, default=unset, metavar="LOW..HIGH", help="right replies")
  add("--batch_size", type=int, default=unset, metavar="N", help="prompts at a time")
  add("--cache", default=unset, metavar="DIR", help="of encoder frames, to be shared")
  add = out.add_argument_group(f"drawing; by default {OPTIONS}").add_argument
  for name, (kind, what) in {
    "temperature": (float, "0 takes the likeliest token"),
    "top_k": (int, "among so many likeliest tokens; else all"),
    "top_p": (float, "among the likeliest tokens of that mass; else all"),
    "max_new_tokens": (int, "of a reply"),
    "seed": (int, "of the draws; else 0"),
  }.items():
    add(f"--{name}", type=kind, default=unset, metavar="N", help=what)
  return out


def main(argv: Sequence[str] | None = None) -> None:
  parsing = parser()
  arguments = vars(parsing.parse_args(argv))
  one = sorted({"audio", "prompt", "system"} & set(arguments))
  keys = {"jsonl", "out", "samples", "keep", "batch_size", "cache"}
  many = sorted(keys & set(arguments))
  if one and many:
    parsing.error(f"{one} ask for one reply and {many} for rollout rows: choose")
  if not {"audio", "prompt"} & set(one) and not {"jsonl", "out"} <= set(many):
    parsing.error("give --audio, --prompt or both, or else --jsonl and --out")
  with errors.readable("generate"):
    if many:
      counts = rollouts(**arguments)
      print(", ".join(f"{count} {name}" for name, count in counts.items()))
    else:
      _show(run(**arguments), arguments["thinking"])


def _show(reply: Reply, thinking: bool) -> None:
  if thinking:
    print(f"[thought]\n{reply.think}\n[answer]")
  if reply.answer:
    print(reply.answer)
  else:
    why = "is empty" if reply.answer == "" else "never came: the thought did not close"
    print(f"the answer {why}", file=sys.stderr)
  if reply.truncated:
    print(f"cut off after {len(reply.token_ids)} tokens", file=sys.stderr)


if __name__ == "__main__":
  main()
