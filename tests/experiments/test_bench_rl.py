"""The benchmark's arithmetic by hand, what it asks of the peers' scripts, its parts."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import bench_rl, bench_rl_ours, bench_rl_peers
from stepaudio_jax.core import tree
from stepaudio_jax.models import step_audio
from tests import small

JOB = bench_rl_ours.Job(2, 2, 6, 4)


def test_the_decoder_is_the_peers():
  """Qwen2's count: two embeddings, norms, biases of q, k and v, seven matrices."""
  size = bench_rl_ours.SIZE
  layer = 2 * 512 * 512 + 2 * 512 * 128 + 3 * 512 * 1408 + 512 + 2 * 128 + 2 * 512
  leaves = tree.named_leaves(step_audio.abstract_params(size)["decoder"])
  found = sum(leaf.size for _, leaf in leaves)
  assert found == 2 * 1024 * 512 + 8 * layer + 512 == 23_607_808


def test_flops_of_job_a_by_hand():
  """Two for each weight and token, four for each seen pair, head, layer and width."""
  shared = bench_rl_ours.flops(bench_rl_ours.JOBS["A"], True)
  copied = bench_rl_ours.flops(bench_rl_ours.JOBS["A"], False)
  head = 1024 * 512
  inside = 8 * (2 * 512 * 512 + 2 * 512 * 128 + 3 * 512 * 1408)
  replies = 2 * 32 * 64 * (inside + head)
  replies += 4 * 8 * 8 * 64 * 32 * (64 * 64 + 64 * 64 // 2)
  prompt = 2 * 64 * inside + 4 * 8 * 8 * 64 * (64 * 64 // 2)
  assert shared["reference"] == replies + 8 * prompt
  assert copied["reference"] == replies + 32 * prompt
  assert shared["update"] == 3 * shared["reference"]
  assert shared.keys() == {"prefill", "decode", "reference", "update"}
  assert shared["decode"] == copied["decode"]


def test_a_script_must_hold_what_is_edited(tmp_path, monkeypatch):
  monkeypatch.setattr(bench_rl_peers, "SCRIPTS", tmp_path)
  with pytest.raises(FileNotFoundError, match="--peers none runs ours alone"):
    bench_rl_peers.trl(tmp_path, JOB, 5)
  (tmp_path / "trl_grpo.py").write_text("PROMPTS = 8\n")
  with pytest.raises(ValueError, match=r"holds 'CLEN, STEPS = .*' 0 times, not once"):
    bench_rl_peers.trl(tmp_path, JOB, 5)


def test_what_was_measured_is_not_measured_again(tmp_path, monkeypatch, capsys):
  calls = []

  def timed(job, shared, steps):
    calls.append((job.samples, shared, steps))
    return {"seconds": dict.fromkeys((*bench_rl_ours.PHASES, "step"), 2.0), "slots": 1}

  monkeypatch.setattr(bench_rl, "timed", timed)
  monkeypatch.setattr(
    bench_rl, "machine", lambda: {"flops_per_s": 1e12, "bytes_per_s": 1e10}
  )
  alone = {"seconds": [3.0, 9.0, 2.0]}
  monkeypatch.setattr(bench_rl, "generated", lambda: alone)
  known = ["--workdir", str(tmp_path), "--peers", "none", "--jobs", "A"]
  args = bench_rl.arguments([*known, "--only", "A.ours_shared"])
  found = bench_rl.summary(args, bench_rl.measured(args))
  assert calls == [(4, True, 5)]
  assert found["jobs"]["A"]["ours_shared_s"] == 2.0
  assert found["jobs"]["A"]["roofline_s"] is None
  args = bench_rl.arguments(known)
  found = bench_rl.summary(args, bench_rl.measured(args))
  assert calls == [(4, True, 5), (4, False, 5)]
  # 604 GFLOP at 1 TFLOP/s, and 63 tokens that read 94 MB of weights and the keys.
  assert found["jobs"]["A"]["roofline_s"] == pytest.approx(0.604 + 0.63, abs=0.04)
  assert found["generate"]["ours_in_a_step_tokens_per_s"] == 2048 / 4.0
  assert found["generate"]["ours_tokens_per_s"] == 2048 / 3.0  # the median's
  json.dumps(found)
  assert "A.ours_shared: 2.00 s a step, 2048 tokens drawn" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["--only", "C.ours"], "--only C.ours: the parts are machine A.ours"),
    (["--peers", "none", "trl"], "none goes alone"),
    (["--steps", "0"], "--steps 0: at least 1"),
  ],
)
def test_wrong_arguments_are_named(options, message, capsys):
  with pytest.raises(SystemExit):
    bench_rl.arguments(options)
  assert message in capsys.readouterr().err


@pytest.mark.slow
def test_both_layouts_make_the_same_step():
  size = dataclasses.replace(small.SIZE, vocabulary=300)
  after = []
  for shared in (False, True):
    run = bench_rl_ours.Ours(JOB, shared, size)
    seconds = run.step(0)
    assert set(seconds) == {*bench_rl_ours.PHASES, "step"} - {"prefill"}
    assert run.sample_s(1) > 0
    after.append(jax.device_get(run.state.opt_state))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), *after
  )
