"""experiments/launch_tpu.sh with a gcloud whose workers are folders of this machine."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = "experiments/launch_tpu.sh"
# `scp FILE NAME:` copies to both workers, `ssh … --command TEXT` runs the text there.
GCLOUD = r"""#!/bin/bash
echo "$*" >> "$WORKERS/calls"
[[ "$1 $2 $3" == "compute tpus tpu-vm" ]] || exit 9
for worker in 0 1; do
  cd "$WORKERS/$worker"
  case "$4" in
    scp) cp "$5" . ;;
    ssh) WORKER=$worker bash -c "${@: -1}" || exit $? ;;
  esac
done
"""
# `python3 -m venv .venv` makes a folder whose pip writes down what it was asked for.
PYTHON = r"""#!/bin/bash
[[ "$*" == "-m venv .venv" ]] || exit 9
mkdir -p .venv/bin
echo 'echo "$PWD $*" >> "$WORKERS/pip"' > .venv/bin/pip
echo 'export ACTIVE=yes' > .venv/bin/activate
chmod +x .venv/bin/pip
"""
COMMAND = r"""#!/bin/bash
{ echo "$WORKER $ACTIVE $STEPAUDIO_PROCESSES $(basename "$PWD")"; printf '<%s>' "$@"
  echo; [[ $(cat run.pid) == $$ ]] && echo "run.pid is mine"; } >> "$WORKERS/ran"
[[ $1 != fail ]] || exit 3
"""


@pytest.fixture
def cloud(tmp_path):
  """A repository with the script, two workers, and stand-ins for other programs."""
  repository, workers, programs = (tmp_path / n for n in ("repo", "workers", "bin"))
  for folder in (workers / "0", workers / "1", programs, repository / "experiments"):
    folder.mkdir(parents=True)
  shutil.copy(ROOT / SCRIPT, repository / SCRIPT)
  (repository / "setup.py").write_text("committed")
  (repository / ".gitignore").write_text("*.wav\n")
  subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
  subprocess.run(["git", "add", "."], cwd=repository, check=True)
  (repository / "setup.py").write_text("changed")
  (repository / "new file.py").write_text("not added")
  (repository / "large.wav").write_text("ignored")
  for name, text in {"gcloud": GCLOUD, "python3": PYTHON, "train": COMMAND}.items():
    (programs / name).write_text(text)
    (programs / name).chmod(0o755)
  return repository, workers, programs


def launch(cloud, *args):
  repository, workers, programs = cloud
  path = f"{programs}{os.pathsep}{os.environ['PATH']}"
  return subprocess.run(
    ["bash", str(repository / SCRIPT), *args],
    env=os.environ | {"PATH": path, "WORKERS": str(workers)},
    capture_output=True,
    text=True,
    check=False,
  )


def test_every_worker_gets_the_code_installs_it_and_runs_the_command(cloud):
  args = ("--tpu", "pod", "--zone", "us-x", "--project", "mine", "--")
  done = launch(cloud, *args, "train", "--config", "sft.py:smoke", "a b", "$HOME")
  assert done.returncode == 0, done.stderr
  workers = cloud[1]
  for worker in ("0", "1"):
    folder = workers / worker / "stepaudio_jax"
    found = {p.name for p in folder.iterdir()} - {".venv", "run.pid"}
    assert found == {"experiments", "setup.py", ".gitignore", "new file.py"}
    assert (folder / "setup.py").read_text() == "changed"
  assert (workers / "pip").read_text().count(
    "stepaudio_jax install -q -e .[tpu]\n"
  ) == 2
  each = "{} yes auto stepaudio_jax\n<--config><sft.py:smoke><a b><$HOME>\n"
  each += "run.pid is mine\n"
  assert (workers / "ran").read_text() == each.format(0) + each.format(1)
  calls = (workers / "calls").read_text().splitlines()
  assert [line.split()[3] for line in calls] == ["scp", "ssh", "ssh"]
  assert all(
    "pod" in x and "--zone us-x --worker=all --project mine" in x for x in calls
  )


def test_a_command_that_fails_is_the_scripts_status(cloud):
  args = ("--tpu", "pod", "--zone", "x", "--")
  assert launch(cloud, *args, "train", "go").returncode == 0
  assert (
    launch(cloud, *args[:-1], "--no-install", "--", "train", "fail").returncode == 3
  )
  calls = (cloud[1] / "calls").read_text().splitlines()
  assert [line.split()[3] for line in calls] == ["scp", "ssh", "ssh", "ssh"]


def test_stop_signals_the_process_that_the_command_became(cloud):
  programs = cloud[2]
  # Returns at once, as ssh does not, so that the test can go on.
  text = "#!/bin/bash\nnohup sleep 60 > /dev/null 2>&1 &\necho $! > run.pid\n"
  (programs / "train").write_text(text)
  where = ("--tpu", "pod", "--zone", "x")
  assert launch(cloud, *where, "--", "train").returncode == 0
  pids = [int(p.read_text()) for p in cloud[1].glob("*/stepaudio_jax/run.pid")]
  assert len(pids) == 2
  assert all(alive(pid) for pid in pids)
  assert launch(cloud, *where, "--stop").returncode == 0
  assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
  state = subprocess.run(
    ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
  )
  return state.stdout.strip()[:1] not in ("", "Z")


def test_a_dry_run_prints_and_calls_nothing(cloud):
  done = launch(cloud, "--tpu", "pod", "--zone", "x", "--dry-run", "--", "train", "a b")
  assert done.returncode == 0
  assert done.stdout.count("gcloud compute tpus tpu-vm") == 3
  assert not (cloud[1] / "calls").exists()


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (("--tpu", "a"), "--tpu and --zone must be given"),
    (("--tpu", "a", "--zone", "b"), "no command"),
    (("--tpuu", "a"), "unknown argument '--tpuu'"),
    (("--tpu",), "--tpu needs a value"),
    (("--tpu", "a", "--zone", "b", "--folder", "a b", "--", "c"), "--folder 'a b'"),
  ],
)
def test_wrong_arguments_are_named(cloud, args, message):
  done = launch(cloud, *args)
  assert done.returncode == 2
  assert message in done.stderr
  assert not (cloud[1] / "calls").exists()


def test_help_says_what_it_needs(cloud):
  done = launch(cloud, "--help")
  assert done.returncode == 0
  assert "--worker" not in done.stdout
  assert "--zone ZONE" in done.stdout
