#!/usr/bin/env bash
# The exported remote code in the oldest transformers that it promises to work with.
#
#   tests/compat/run.sh [PYTHON [FOLDER]]
#
# PYTHON (default: python) has stepaudio_jax and its test extra: it writes the export,
# its inputs and our own answers, and makes one virtual environment for each release,
# with transformers and torch alone. FOLDER (default: stepaudio-compat in the system's
# temporary folder) keeps the environments, 1 GB each; a second run takes a minute.
# Exit status 1 where any check of check.py fails. `pytest -m slow tests/hf` runs it too.
set -euo pipefail

releases=(4.49 4.53)
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${1:-python}
folder=${2:-${TMPDIR:-/tmp}/stepaudio-compat}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

# The torch of the test extra: the old releases ask for 2.0 or newer.
torch=$(grep -o 'torch==[0-9.]*' "$root/setup.py")
export HF_HUB_OFFLINE=1

rm -rf "$folder/case"
(cd "$root" && JAX_PLATFORMS=cpu "$python" -m tests.compat.case "$folder/case")

failed=()
for release in "${releases[@]}"; do
  venv=$folder/transformers-$release
  if [ ! -e "$venv/complete" ]; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet "transformers==$release.*" "$torch" \
      numpy jinja2 soundfile soxr
    touch "$venv/complete"
  fi
  rm -rf "$folder/modules"
  if ! (cd "$folder" && HF_MODULES_CACHE="$folder/modules" \
    "$venv/bin/python" -I "$here/check.py" "$folder/case"); then
    failed+=("$release")
  fi
done

if [ ${#failed[@]} -gt 0 ]; then
  echo "failed with transformers: ${failed[*]}" >&2
  exit 1
fi
echo "all checks passed with transformers ${releases[*]}"
