"""Losses against arithmetic by hand, brute force and torch."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from stepaudio_jax import losses
from stepaudio_jax.core import masked
from stepaudio_jax.core.types import Batch
from stepaudio_jax.models import vocabulary


def batch_of(token, loss, segment, source=None):
  token_BT, segment_BT = np.array(token, np.int32), np.array(segment, np.int32)
  rows = token_BT.shape[0]
  return Batch(
    token_BT=token_BT,
    segment_BT=segment_BT,
    position_BT=np.zeros_like(token_BT),
    loss_BT=np.array(loss, bool),
    example_BT=segment_BT - 1,
    source_BT=np.zeros_like(token_BT) if source is None else np.array(source),
    frames_BRUE=np.zeros((rows, 0, 0, 4), np.float32),
    frame_count_BR=np.zeros((rows, 0), np.int32),
    audio_BT=np.full_like(token_BT, -1),
  )


def said(logits_BTV, batch):
  return vocabulary.scored(logits_BTV, vocabulary.targets(batch))


def test_next_token_by_hand():
  # Tokens 1 0 | 1 1, the second half another segment; every token is marked. The
  # first of each segment has no predecessor, so t=1 and t=3 alone count.
  logits_BTV = jnp.log(jnp.array([[[0.2, 0.8], [0.5, 0.5], [0.9, 0.1], [0.5, 0.5]]]))
  batch = batch_of([[1, 0, 1, 1]], [[1, 1, 1, 1]], [[1, 1, 2, 2]], [[0, 0, 1, 1]])
  total, metrics = losses.next_token(said(logits_BTV, batch), batch, ("a", "b"))
  first, second = -math.log(0.2), -math.log(0.1)
  assert float(total) == pytest.approx(first + second, rel=1e-6)
  assert float(metrics["loss"].count) == 2
  assert float(masked.ratio(metrics["loss_a"])) == pytest.approx(first, rel=1e-6)
  assert float(masked.ratio(metrics["loss_b"])) == pytest.approx(second, rel=1e-6)
  assert float(masked.ratio(metrics["accuracy"])) == 0.0


def test_next_token_gradient_is_zero_wherever_nothing_is_predicted():
  rng = np.random.default_rng(0)
  logits_BTV = jnp.asarray(rng.normal(size=(2, 5, 7)), jnp.float32)
  loss = [[0, 0, 1, 1, 1], [0, 1, 0, 0, 0]]
  segment = [[1, 1, 1, 2, 2], [1, 1, 0, 0, 0]]
  batch = batch_of(rng.integers(7, size=(2, 5)), loss, segment)
  grad_BTV = jax.grad(lambda x: losses.next_token(said(x, batch), batch, ())[0])(
    logits_BTV
  )
  # Position t predicts t + 1: (0,1)→2 and (0,3)→4 and (1,0)→1; (0,2)→3 crosses.
  touched = {(b, t) for b, t in np.argwhere(np.abs(grad_BTV).sum(-1) > 0).tolist()}
  assert touched == {(0, 1), (0, 3), (1, 0)}


def test_next_token_ignores_what_nan_lies_outside_the_mask():
  batch = batch_of([[0, 1, 0]], [[0, 1, 0]], [[1, 1, 0]])
  logits_BTV = jnp.zeros((1, 3, 2)).at[0, 1:].set(jnp.nan)
  total, _ = losses.next_token(said(logits_BTV, batch), batch, ())
  assert float(total) == pytest.approx(math.log(2), rel=1e-6)


def brute_force_ctc(probability_UV, label):
  """−log of the summed probability of every path that collapses to the label."""
  frames, symbols = probability_UV.shape
  total = 0.0
  for path in itertools.product(range(symbols), repeat=frames):
    collapsed = [s for i, s in enumerate(path) if i == 0 or path[i - 1] != s]
    if [s for s in collapsed if s != 0] == list(label):
      total += math.prod(probability_UV[u, s] for u, s in enumerate(path))
  return -math.log(total)


@pytest.mark.parametrize("label", [(1,), (1, 2), (2, 2), (1, 2, 1)])
def test_ctc_equals_the_sum_over_all_paths(label):
  rng = np.random.default_rng(1)
  logits_BUV = rng.normal(size=(1, 6, 3)).astype(np.float32)
  frames = 5
  probability_UV = np.asarray(jax.nn.softmax(logits_BUV[0, :frames]))
  padded = np.zeros((1, 4), np.int32)
  padded[0, : len(label)] = label
  total, metrics = losses.ctc(
    jnp.asarray(logits_BUV), jnp.array([frames]), padded, jnp.array([len(label)])
  )
  wanted = brute_force_ctc(probability_UV, label) / len(label)
  assert float(total) == pytest.approx(wanted, rel=1e-4)
  assert float(metrics["loss"].count) == 1


def test_ctc_equals_torch_and_leaves_impossible_clips_out():
  rng = np.random.default_rng(2)
  logits_BUV = rng.normal(size=(3, 20, 6)).astype(np.float32)
  frames, counts = np.array([20, 13, 3]), np.array([4, 6, 3])
  label_BT = rng.integers(1, 6, size=(3, 6)).astype(np.int32)
  label_BT[2, :3] = 5  # three equal symbols need five frames: three are too few
  wanted = torch.nn.functional.ctc_loss(
    torch.log_softmax(torch.tensor(logits_BUV), -1).transpose(0, 1),
    torch.tensor(label_BT.astype(np.int64)),
    torch.tensor(frames),
    torch.tensor(counts),
    reduction="none",
  ).numpy()
  assert np.isinf(wanted[2])
  total, metrics = losses.ctc(jnp.asarray(logits_BUV), frames, label_BT, counts)
  assert float(total) == pytest.approx((wanted[:2] / counts[:2]).sum(), rel=1e-4)
  assert float(metrics["loss"].count) == 2
  assert float(masked.ratio(metrics["infeasible"])) == pytest.approx(1 / 3)
  grad = jax.grad(lambda x: losses.ctc(x, frames, label_BT, counts)[0])(
    jnp.asarray(logits_BUV)
  )
  assert np.isfinite(grad).all()
  assert (np.asarray(grad)[2] == 0).all()
  assert (np.asarray(grad)[1, 13:] == 0).all()


def test_classes_leave_unknown_labels_out():
  # Two clips of two frames; the first one's third frame is padding.
  clip = [[0.5, 0.25, 0.25], [0.2, 0.4, 0.4], [0.0, 1.0, 0.0]]
  logits_BUV = jnp.log(jnp.array([clip, clip]) + 1e-30)
  total, metrics = losses.classes(logits_BUV, jnp.array([2, 3]), jnp.array([1, -1]))
  wanted = -(math.log(0.25) + math.log(0.4)) / 2
  assert float(total) == pytest.approx(wanted, rel=1e-6)
  assert float(metrics["loss"].count) == 1
  # ½·log(.5·.2) = −1.15 and ½·log(.25·.4) = −1.15 tie: the first class is taken.
  assert float(masked.ratio(metrics["accuracy"])) == 0.0
  grad = jax.grad(
    lambda x: losses.classes(x, jnp.array([2, 3]), jnp.array([1, -1]))[0]
  )(logits_BUV)
  assert (np.asarray(grad)[0, 2] == 0).all()
  assert (np.asarray(grad)[1] == 0).all()
  assert (np.asarray(grad)[0, :2] != 0).all()


def test_a_mean_of_nothing_is_nan_and_not_zero():
  empty = masked.mean(jnp.ones(3), jnp.zeros(3, bool))
  assert np.isnan(masked.ratio(empty))
