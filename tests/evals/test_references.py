"""What replies are compared with: a prompt's own reply, or a sample that is kept."""

from stepaudio_jax.evals.parts.references import References
from stepaudio_jax.evals.parts.speaker import Speaker
from tests.evals import worlds

ASKED = [{"role": "human", "content": [worlds.text("Pitch?")]}]
REPLY = {"role": "assistant", "content": [worlds.text("mine")]}
MINE = {"id": "a", "messages": ASKED, "reference": REPLY}


def test_another_sound_in_a_file_of_that_name_is_another_prompt(tmp_path, monkeypatch):
  asked = []

  def say(speaker, conversations, options):
    asked.extend(conversations)
    return [f"said {len(asked)}" for _ in conversations]

  monkeypatch.setattr(Speaker, "say", say)
  heard = {"type": "audio", "path": str(tmp_path / "a.wav")}
  row = {"id": "a", "messages": [{"role": "human", "content": [heard]}]}
  found = []
  for seed in (0, 0, 1):
    worlds.write_noise(tmp_path / "a.wav", 8_000, seed)
    found += References(worlds.model, "runs/sft/3", 9, tmp_path)([row])
  assert found == ["said 1", "said 1", "said 2"]


def test_references_are_the_rows_own_or_a_greedy_sample_that_is_kept(
  tmp_path, monkeypatch
):
  opened, asked = [], []

  def say(speaker, conversations, options):
    asked.extend(conversations)
    assert (options.temperature, options.max_new_tokens) == (0.0, 9)
    return [
      None if "odd" in str(one) else f"said {len(asked)}" for one in conversations
    ]

  def opening():
    opened.append(1)
    return worlds.model()

  monkeypatch.setattr(Speaker, "say", say)
  known = References(opening, "runs/sft/3", 9, tmp_path)
  assert known([MINE]) == ["mine"]
  assert not opened
  think = {"role": "assistant", "content": "Low.", "think": "Deep."}
  open_row = {"id": "b", "messages": [*ASKED, think, *ASKED]}
  odd = {"id": "c", "messages": [{"role": "human", "content": "odd"}]}
  rows = [open_row, MINE, odd, open_row]
  assert known(rows) == ["said 2", "mine", None, "said 2"]
  assert len(asked) == 2
  assert "think" not in asked[0][1]
  # Another start, and another run of the same reference: nobody is asked again.
  again = References(opening, "runs/sft/3", 9, tmp_path)
  assert again(rows) == known(rows) == ["said 2", "mine", None, "said 2"]
  assert len(asked) == 2
  # Another reference, and a damaged entry: somebody is.
  References(opening, "runs/sft/4", 9, tmp_path)(rows)
  assert len(asked) == 4
  for path in (tmp_path / "references").rglob("*.json"):
    path.write_text("{")
  References(opening, "runs/sft/3", 9, tmp_path)(rows)
  assert len(asked) == 6
  assert len(opened) == 3
