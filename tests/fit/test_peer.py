import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from experiments import fit_peer

HERE = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_our_32b_step_beside_a_compact_one(tmp_path):
  """Predicted MFU at 4,096 tokens, same slice and prices."""
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip('libtpu is not installed: pip install -e ".[tpu]"')
  if not fit_peer.PEERS.exists():
    pytest.skip(f"the yardstick is not at {fit_peer.PEERS}")
  command = [sys.executable, "-m", "experiments.fit_peer", "--out", str(tmp_path)]
  subprocess.run(command, cwd=HERE, check=True, capture_output=True)
  found = json.loads((tmp_path / fit_peer.file_name("v5p:4x4x4")).read_text())
  assert found["ours_over_peer"] >= 0.9
  assert found["ours"]["unpriced_share"] == found["peer"]["unpriced_share"] == 0
