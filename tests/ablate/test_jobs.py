"""Commands side by side: what is done stays done, what fails is told."""

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from etils import epath

from stepaudio_jax.ablate import jobs

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE_S = 120


def job(name, folder, code, *, lacking=lambda: None):
  """Notes that it ran, then does `code`."""
  noted = f"open({str(folder / f'{name}.ran')!r}, 'a').write('x'); "
  command = (sys.executable, "-S", "-c", f"import os, sys, time; {noted}{code}")
  return jobs.Job(name, [jobs.Task("work", command, lacking)])


def exists(path):
  return f"os.path.exists({path!r})"


def ran(name, folder):
  path = folder / f"{name}.ran"
  return len(path.read_text()) if path.exists() else 0


def test_a_failure_is_told_and_the_next_start_tries_it_alone(tmp_path, capfd):
  path = tmp_path / "there"
  code = f"sys.exit(0 if {exists(str(path))} else 3)"
  code = f"print('no such thing', file=sys.stderr); {code}"
  made = [
    job("good", tmp_path, ""),
    job("bad", tmp_path, code),
    job("last", tmp_path, ""),
  ]
  found = jobs.run(made, epath.Path(tmp_path / "jobs"), slots=1)
  assert {name: one["state"] for name, one in found.items()} == {
    "good": "done",
    "bad": "failed",
    "last": "done",
  }
  assert found["bad"]["message"].endswith("no such thing\nwork: exit status 3")
  told = capfd.readouterr().err
  assert "bad: FAILED: work: exit status 3; 2 of 3 jobs, about 0 min left" in told
  assert "last: done; 3 of 3 jobs\n" in told
  path.touch()
  found = jobs.run(made, epath.Path(tmp_path / "jobs"), slots=1)
  assert found["bad"]["state"] == "done"
  assert [ran(name, tmp_path) for name in ("good", "bad", "last")] == [1, 2, 1]


def test_a_job_with_another_command_is_done_again(tmp_path):
  jobs.run([job("one", tmp_path, "")], epath.Path(tmp_path / "jobs"), slots=1)
  jobs.run(
    [job("one", tmp_path, "time.time()")], epath.Path(tmp_path / "jobs"), slots=1
  )
  assert ran("one", tmp_path) == 2


def test_status_0_is_not_enough(tmp_path):
  """A run that was announced its end saves and leaves with status 0."""
  half = job("half", tmp_path, "", lacking=lambda: "ended after step 3 of 20")
  found = jobs.run([half], epath.Path(tmp_path / "jobs"), slots=1)
  assert found["half"]["state"] == "failed"
  assert found["half"]["message"].endswith("work: ended after step 3 of 20")


def test_tasks_follow_each_other_and_stop_at_a_failure(tmp_path):
  first = job("one", tmp_path, "sys.exit(1)").tasks[0]
  second = jobs.Task("more", job("two", tmp_path, "").tasks[0].command, lambda: None)
  both = jobs.Job("both", [first, second])
  assert (
    jobs.run([both], epath.Path(tmp_path / "jobs"), slots=1)["both"]["state"]
    == "failed"
  )
  assert [ran(name, tmp_path) for name in ("one", "two")] == [1, 0]


def test_two_slots_run_at_once_with_equal_cores_and_variables_of_their_own(tmp_path):
  """Each waits for the other to have begun."""

  def waits(name, other):
    theirs = str(tmp_path / f"{other}.ran")
    cores = "len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1"
    seen = f"str({cores}) + ' ' + os.environ['SLOT']"
    told = f"open({str(tmp_path / name)!r}, 'w').write({seen})"
    patient = f"any({exists(theirs)} or time.sleep(0.1) for _ in range(600))"
    wait = f"{patient} or sys.exit(1)"
    return job(name, tmp_path, f"{told}; {wait}")

  variables = [{"SLOT": "first"}, {"SLOT": "second"}]
  made = [waits("a", "b"), waits("b", "a")]
  found = jobs.run(made, epath.Path(tmp_path / "jobs"), slots=2, variables=variables)
  assert {one["state"] for one in found.values()} == {"done"}
  (cores, slot), (others, other) = ((tmp_path / n).read_text().split() for n in "ab")
  assert cores == others
  assert (slot, other) == ("first", "second")


def test_a_start_waits_for_the_process_of_one_that_was_killed(tmp_path):
  """The lock is the process's; until it goes no second one begins."""
  folder = epath.Path(tmp_path / "jobs")
  folder.mkdir()
  one = job("one", tmp_path, "")
  with (folder / "one.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert jobs._started(one, one.tasks[0], folder, 0, 1, [{}]) is None
  process = jobs._started(one, one.tasks[0], folder, 0, 1, [{}])
  assert process.wait(PATIENCE_S) == 0
  assert ran("one", tmp_path) == 1


_KILLED = """
import sys
from etils import epath
from stepaudio_jax.ablate import jobs
folder = epath.Path(sys.argv[1])
code = (
  "import pathlib, time; f = pathlib.Path(%r); f.open('a').write('x'); "
  "[time.sleep(0.1) for _ in range(1200) if not f.with_suffix('.go').exists()]"
)
command = lambda n: (sys.executable, "-S", "-c", code % str(folder / n))
made = [
  jobs.Job(n, [jobs.Task("work", command(n), lambda: None)]) for n in ("a.ran", "b.ran")
]
jobs.run(made, folder / "jobs", slots=1)
"""


def test_sigterm_between_runs_ends_them_and_the_next_start_goes_on(tmp_path):
  """The first is done, the second is at work when the notice comes."""
  command = [sys.executable, "-c", _KILLED, str(tmp_path)]

  def started():
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)

  def until(there):
    end = time.monotonic() + PATIENCE_S
    while not there():
      assert time.monotonic() < end
      time.sleep(0.05)

  (tmp_path / "a.go").touch()
  process = started()
  until(lambda: ran("b", tmp_path))
  process.send_signal(signal.SIGTERM)
  assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
  assert "work" in json.loads((tmp_path / "jobs" / "a.ran.json").read_text())
  assert not (tmp_path / "jobs" / "b.ran.json").exists()
  with (tmp_path / "jobs" / "b.ran.lock").open("w") as lock:  # nobody lives on
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  (tmp_path / "b.go").touch()
  assert started().wait(PATIENCE_S) == 0
  assert [ran(name, tmp_path) for name in "ab"] == [1, 2]


def test_a_device_is_a_slot_and_two_cores_are_another(monkeypatch):
  assert jobs.at_a_time(0, ("0", "1", "5")) == 3
  assert jobs.at_a_time(7, ()) == 7
  monkeypatch.setattr(jobs, "_PROBE", "print('tpu')")
  assert jobs.at_a_time(0, ()) == 1
  monkeypatch.setattr(jobs, "_PROBE", "print('cpu')")
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4}, raising=False)
  assert jobs.at_a_time(0, ()) == 2
