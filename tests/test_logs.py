"""What a run leaves for people, over several starts."""

import json
import struct

import pytest
from ml_collections import ConfigDict
from tensorboardX.proto import event_pb2

from stepaudio_jax import logs


def config(**changes):
  flat = {"seed": 3, "total_steps": 4, "optim": {"schedule": "constant", "lr": 1.0}}
  c = ConfigDict(flat | {"log": {"every_steps": 1}, "mesh": {"fsdp": 1}})
  c.update_from_flattened_dict(changes)
  return c


def started(workdir, c):
  logs.record(logs.check_workdir(workdir, c), c)


def read(path):
  return json.loads(path.read_text())


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_length_of_a_run_is_part_of_a_schedule_that_ends(tmp_path, schedule):
  started(tmp_path, config(**{"optim.schedule": schedule}))
  longer = config(**{"optim.schedule": schedule, "total_steps": 9})
  message = r"total_steps: 4 → 9\. Use.*only with optim\.schedule 'constant'"
  with pytest.raises(ValueError, match=message):
    logs.check_workdir(tmp_path, longer)
  assert logs.config_hash({"optim.schedule": schedule, "total_steps": 4}) != (
    logs.config_hash({"optim.schedule": schedule, "total_steps": 9})
  )


def test_a_run_of_constant_rate_may_go_on_longer(tmp_path):
  started(tmp_path, config())
  longer = config(**{"total_steps": 9, "log.every_steps": 5})
  logs.check_workdir(tmp_path, longer)
  started(tmp_path, longer)
  hashes = {logs.config_hash(c) for c in ({"total_steps": 4}, {"total_steps": 9})}
  assert len(hashes) == 1
  assert read(tmp_path / "config.json")["config"]["total_steps"] == 9


def test_a_run_may_go_on_over_another_mesh_and_is_warned(tmp_path, caplog):
  started(tmp_path, config(**{"mesh.fsdp": 2}))
  other = config(**{"mesh.fsdp": 1})
  logs.check_workdir(tmp_path, other)
  started(tmp_path, other)
  assert "mesh: {'fsdp': 2} → {'fsdp': 1}" in caplog.text


def test_another_schedule_is_another_run(tmp_path):
  started(tmp_path, config())
  with pytest.raises(ValueError, match=r"schedule: 'constant' → 'cosine'\. Use.*with"):
    logs.check_workdir(tmp_path, config(**{"optim.schedule": "cosine"}))


def test_keys_that_came_later_are_accepted_where_they_are_off(tmp_path, capsys):
  """Others are refused: what was done without them nobody can tell."""
  started(tmp_path, config())
  later = config()
  later.sampling = {"slots": 0}
  later.kl = {"target": 0.0, "horizon": 7}
  logs.check_workdir(tmp_path, later)
  told = "began before these keys were there, and goes on as then: "
  assert (
    f"{told}kl.horizon=7, kl.target=0.0, sampling.slots=0\n" in capsys.readouterr().err
  )
  changed = later.copy_and_resolve_references()
  changed.sampling.slots = 8
  with pytest.raises(ValueError, match=r"config: sampling\.slots: 'absent' → 8\. Use"):
    logs.check_workdir(tmp_path, changed)
  changed.sampling.slots, changed.kl.target = 0, 0.1
  wrong = r"config: kl\.horizon: 'absent' → 7; kl\.target: 'absent' → 0\.1\. Use"
  with pytest.raises(ValueError, match=wrong):
    logs.check_workdir(tmp_path, changed)
  unknown = config()
  unknown.novel = False
  with pytest.raises(ValueError, match=r"config: novel: 'absent' → False\. Use"):
    logs.check_workdir(tmp_path, unknown)
  started(tmp_path, later)
  with pytest.raises(ValueError, match=r"config: kl\.target: 0\.0 → 'absent'"):
    logs.check_workdir(tmp_path, _without(later))


def _without(c):
  out = c.copy_and_resolve_references()
  with out.unlocked():
    del out.kl["target"]
  return out


def test_the_manifest_is_the_first_starts_and_lists_all(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(logs.sys, "argv", ["first"])
  started(tmp_path, config())
  assert "other conditions" not in caplog.text
  monkeypatch.setattr(logs.sys, "argv", ["second"])
  started(tmp_path, config())
  assert "other conditions" not in caplog.text
  whole = logs.manifest
  monkeypatch.setattr(logs, "manifest", lambda c: whole(c) | {"visible_cores": 99})
  started(tmp_path, config())
  assert "other conditions" in caplog.text
  assert "visible_cores: " in caplog.text
  assert "→ 99" in caplog.text
  manifest = read(tmp_path / "manifest.json")
  assert (manifest["command"], manifest["seeds"]) == (["first"], {"seed": 3})
  assert manifest["visible_cores"] != 99
  commands = [start["command"] for start in manifest["starts"]]
  assert commands == [["first"], ["second"], ["second"]]
  assert [start["visible_cores"] == 99 for start in manifest["starts"]] == [0, 0, 1]
  assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "manifest.json"]


def test_what_is_not_a_number_is_null(tmp_path):
  metrics = logs.Metrics(tmp_path, start_step=0, total_steps=2)
  values = {"a": float("nan"), "b": None, "c": float("-inf"), "d": 0.5}
  metrics.write(1, values)
  metrics.close()
  (row,) = logs.read_metrics(tmp_path / "metrics.jsonl")
  assert row == {"step": 1, "a": None, "b": None, "c": None, "d": 0.5}


def test_rows_and_events_after_the_checkpoint_are_undone(tmp_path):
  for start_step, steps in (0, (1, 2, 3)), (1, (2, 3)):
    metrics = logs.Metrics(tmp_path, start_step=start_step, total_steps=3)
    journal = logs.Journal(tmp_path / "samples.jsonl", start_step=start_step)
    for step in steps:
      metrics.write(step, {"train/loss": step + 10.0 * start_step})
      journal.write([{"step": step, "start": start_step}])
    metrics.close()
    journal.close()
  rows = logs.read_metrics(tmp_path / "metrics.jsonl")
  assert [row["train/loss"] for row in rows] == [1, 12, 13]
  kept = logs.read_metrics(tmp_path / "samples.jsonl")
  assert [(row["step"], row["start"]) for row in kept] == [(1, 0), (2, 1), (3, 1)]
  # TensorBoard leaves out what an earlier file says of the steps from 2 on.
  assert 2 in session_starts(tmp_path / "tensorboard")


def session_starts(folder):
  """Steps from which a start declares earlier events void, read from the records."""
  found = []
  for path in folder.iterdir():
    content, place = path.read_bytes(), 0
    while place < len(content):
      (size,) = struct.unpack_from("<Q", content, place)
      place += 12  # after the length and its checksum
      event = event_pb2.Event.FromString(content[place : place + size])
      place += size + 4
      if event.session_log.status == event_pb2.SessionLog.START:
        found.append(event.step)
  return found
