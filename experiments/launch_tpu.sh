#!/usr/bin/env bash
# Runs a command on every worker of a TPU VM, from this code base as it is here.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: experiments/launch_tpu.sh --tpu NAME --zone ZONE [options] -- COMMAND …

Copies this code base to every worker of a TPU VM, installs it there with the extra
`tpu`, and runs COMMAND on all workers at once, joined by JAX. Run again with the same
--workdir, COMMAND goes on where it was: that is all that a preempted slice needs.

  --tpu NAME        the TPU VM (or queued resource's node)
  --zone ZONE       its zone, such as us-east5-a
  --project ID      of Google Cloud; without it gcloud's own setting
  --folder DIR      on the workers; by default stepaudio_jax in the home folder
  --no-install      neither copy nor install: the workers have both
  --stop            send SIGTERM to the runs on all workers: they save and exit
  --dry-run         print the gcloud commands instead of running them
  -h, --help        this text

Paths of COMMAND are seen by every worker, so a workdir is a bucket or a shared disk:

  experiments/launch_tpu.sh --tpu pod --zone us-east5-a -- \
    python3 -m stepaudio_jax.train --config configs/sft.py:size=step_audio_2_mini \
    --workdir gs://BUCKET/sft

It needs gcloud on the PATH, signed in, and Python 3.11 or newer on the workers.
TEXT
}

fail() {
  echo "launch_tpu: $1" >&2
  exit 2
}

tpu="" zone="" project="" folder="stepaudio_jax" install=1 stop=0 dry=0
while [[ $# -gt 0 ]]; do
  case "$1" in
    --tpu | --zone | --project | --folder)
      [[ $# -ge 2 ]] || fail "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    --no-install) install=0 && shift ;;
    --stop) stop=1 && shift ;;
    --dry-run) dry=1 && shift ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    *) fail "unknown argument '$1'; --help lists the choices" ;;
  esac
done
[[ -n $tpu && -n $zone ]] || fail "--tpu and --zone must be given; --help says more"
[[ $stop = 1 || $# -gt 0 ]] || fail "no command; put it behind --"
[[ $folder =~ ^[A-Za-z0-9_./-]+$ ]] || fail "--folder '$folder': letters, digits, _ . / -"

run() {
  if [[ $dry = 1 ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

where=(--zone "$zone" --worker=all)
[[ -z $project ]] || where+=(--project "$project")
on_all() { run gcloud compute tpus tpu-vm ssh "$tpu" "${where[@]}" --command "$1"; }

if [[ $stop = 1 ]]; then
  # The number of the shell that became the run is in the file.
  on_all "kill -TERM \$(cat $folder/run.pid)"
  exit
fi
command -v gcloud > /dev/null || [[ $dry = 1 ]] || fail "gcloud is not on the PATH"

if [[ $install = 1 ]]; then
  here=$(cd "$(dirname "$0")/.." && pwd)
  room=$(mktemp -d)
  trap 'rm -rf "$room"' EXIT
  # What git knows, with the changes that are not committed.
  (cd "$here" && git -c core.quotepath=off ls-files --cached --others --exclude-standard |
    while IFS= read -r file; do [[ ! -e $file ]] || echo "$file"; done |
    tar -czf "$room/stepaudio_jax.tar.gz" -T -)
  run gcloud compute tpus tpu-vm scp "$room/stepaudio_jax.tar.gz" "$tpu:" "${where[@]}"
  on_all "mkdir -p $folder && tar -xzf stepaudio_jax.tar.gz -C $folder && cd $folder && \
python3 -m venv .venv && .venv/bin/pip install -q -e '.[tpu]'"
fi

command=$(printf '%q ' "$@")
on_all "cd $folder && . .venv/bin/activate && echo \$\$ > run.pid && \
export STEPAUDIO_PROCESSES=auto && exec $command"
