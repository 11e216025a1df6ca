"""All of the experiment at smoke size, on noise and with a model of random weights."""

import json

import pytest

from experiments import recordings
from tests.evals import worlds
from tests.experiments import manifests

SAMPLES = 8_000


@pytest.mark.slow
def test_rows_to_page_and_again_without_doing_it_again(tmp_path, monkeypatch):
  audio, d = tmp_path / "audio", tmp_path / "run"
  audio.mkdir()
  rows = manifests.rows()
  for place, row in enumerate(rows):
    worlds.write_noise(audio / row["file"], SAMPLES + 100 * place, place)
  (audio / "manifest.json").write_text(json.dumps(rows))
  start = worlds.write_checkpoint(tmp_path / "start")
  page = recordings.run(audio, start, d, smoke=True)
  result = json.loads((d / "recordings.json").read_text())
  for when in ("before", "after"):
    assert result[when]["all"]["n"] == result[when]["all"]["silence"]["n"] > 10
  assert result["rest"]["emotion"]["n"] == 1
  assert result["rest"]["all"]["silence"] is None
  trained = {row["id"] for row in json.loads((d / "train/manifest.json").read_text())}
  asked = {row["id"] for row in json.loads((d / "heldout/manifest.json").read_text())}
  speakers = {name.split("-")[0].rstrip("0123456789") for name in trained}
  assert not speakers & {name.rstrip("0123456789") for name in asked}
  said = page.read_text()
  for name in ("train", "evaluate"):
    monkeypatch.setattr(getattr(recordings, name), "run", None)
  assert recordings.run(audio, start, d, smoke=True).read_text() == said
  with pytest.raises(SystemExit, match="seed=0 \\(asked for: 1\\)"):
    recordings.run(audio, start, d, smoke=True, seed=1)


def test_a_start_that_is_none_is_an_error_before_anything_is_written(tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint in"):
    recordings.run(tmp_path, tmp_path / "start", tmp_path / "run")
  assert not (tmp_path / "run").exists()
