"""Small benchmark folders, and what reading them says is wrong."""

import io

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile


def mmau_row(name, **changes):
  row = {
    "id": name,
    "audio_id": f"./test-mini-audios/{name}.wav",
    "question": "Who speaks?",
    "choices": ["Man", "Woman"],
    "answer": "Woman",
    "task": "speech",
    "difficulty": "easy",
    "sub-category": "Counting",
  }
  row |= changes
  return {key: value for key, value in row.items() if value is not None}


def tone(hertz=200.0, kind="FLAC", rate=16_000):
  """A file's bytes: a tenth of a second of a sine."""
  file = io.BytesIO()
  time_N = np.arange(rate // 10) / rate
  samples_N = 0.5 * np.sin(2 * np.pi * hertz * time_N)
  soundfile.write(file, samples_N.astype(np.float32), rate, format=kind)
  return file.getvalue()


def table(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def faults(read, folder):
  """The lines of the error, the first without its folder."""
  with pytest.raises(ValueError, match="faults: ") as error:
    read(folder)
  first, *lines = str(error.value).replace(f"{folder}/", "").split("\n  ")
  return [first.replace(f"{folder}: ", ""), *lines]
