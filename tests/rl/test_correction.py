"""Weights of tokens on which sampler and trainer disagree; β that follows a target."""

import json
import math

import jax
import numpy as np
import pytest

from stepaudio_jax.rl.parts import correction, kl
from stepaudio_jax.rl.parts.correction import Correction
from tests.rl import numpy_twin as twin
from tests.rl.experiences import array, close, experience_of, ragged_mask

NAN = math.nan


def weights(given, q, mask=None):
  """Weights and what the bounds decided, for ratios q of the tokens."""
  q_BT = np.atleast_2d(np.array(q, float))
  mask = np.ones(q_BT.shape) if mask is None else mask
  experience = experience_of(mask, old_BT=np.log(q_BT) - 3, sampler_BT=0 * q_BT - 3)
  found = jax.jit(correction.weights, static_argnums=0)(given, experience)
  return [np.array(x).tolist()[0] for x in found]


@pytest.mark.parametrize(
  ("given", "wanted", "decided"),
  [
    (Correction("tis"), [1, 0.2, 1.5, 2, 2], [0, 0, 0, 1, 1]),
    (Correction("tis", limit=5.0), [1, 0.2, 1.5, 3, 5], [0, 0, 0, 0, 1]),
    (Correction("tis", low=0.5), [1, 0.5, 1.5, 2, 2], [0, 1, 0, 1, 1]),
    (Correction("icepop", limit=5.0, low=0.5), [1, 0, 1.5, 3, 0], [0, 1, 0, 0, 1]),
    (Correction("icepop"), [1, 0.2, 1.5, 0, 0], [0, 0, 0, 1, 1]),
  ],
)
def test_tokens_by_hand(given, wanted, decided):
  got, cut = weights(given, [1, 0.2, 1.5, 3, 8])
  assert got == pytest.approx(wanted, rel=1e-5)
  assert cut == decided


def test_a_reply_is_kept_or_left_out_whole():
  # √(4 · ¼) = 1: kept, as much as its tokens disagree; √(2 · 8) = 4 is not, below 5 is.
  assert weights(Correction("sequence_mask"), [4, 0.25]) == [[1, 1], [0, 0]]
  assert weights(Correction("sequence_mask"), [2, 8]) == [[0, 0], [1, 1]]
  assert weights(Correction("sequence_mask", limit=5.0), [2, 8]) == [[1, 1], [0, 0]]
  low = Correction("sequence_mask", low=0.5)
  assert weights(low, [0.1, 0.9]) == [[0, 0], [1, 1]]
  # What was not sampled has no say: 2 alone.
  assert weights(Correction("sequence_mask"), [2, 800], [[1, 0]]) == [[1, 0], [0, 0]]


@pytest.mark.parametrize("kind", ["tis", "icepop", "sequence_mask"])
def test_weights_against_loops_and_without_a_gradient(kind):
  rng = np.random.default_rng(0)
  mask_BT = ragged_mask(rng, 12, 7)
  sampler_BT = rng.normal(-2, 1, size=(12, 7)).astype(np.float32)
  old_BT = (sampler_BT + rng.normal(0, 0.8, size=(12, 7))).astype(np.float32)
  old_BT[0] += 60.0  # beyond what exp may take
  bounds = {"limit": 1.6, "low": 0.7}
  wanted = twin.correction(old_BT, sampler_BT, mask_BT, kind, *bounds.values())
  old_BT[~mask_BT] = sampler_BT[~mask_BT] = NAN
  given = Correction(kind, **bounds)

  def total(x_BT):
    experience = experience_of(mask_BT)
    parts = {"old_BT": x_BT, "sampler_BT": array(sampler_BT)}
    found = correction.weights(
      given, experience.__class__(**{**vars(experience), **parts})
    )
    return found[0].sum(), found

  grad_BT, found = jax.jit(jax.grad(total, has_aux=True))(array(old_BT))
  for got_BT, wanted_BT in zip(found, wanted, strict=True):
    close(got_BT, wanted_BT)
  assert not np.array(grad_BT).any()


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"kind": "tiss"}, r"'tiss'.*'tis', 'icepop', 'sequence_mask', 'none'"),
    ({"kind": "tis", "limit": 0.9}, r"limit=0.9.*low ≤ 1 ≤ limit"),
    ({"kind": "icepop", "low": 1.1}, "low=1.1"),
    ({"kind": "icepop", "low": -1.0}, "low=-1.0"),
    ({"kind": "tis", "limit": math.inf}, "limit=inf"),
  ],
)
def test_impossible_corrections_are_refused(given, message):
  with pytest.raises(ValueError, match=message):
    Correction(**given)


def test_no_correction_has_no_weights():
  with pytest.raises(ValueError, match="'none' has no weights"):
    correction.weights(Correction("none"), experience_of([[1]]))


def test_beta_follows_its_target_by_hand():
  # Twice the target: +20 % · 100/1000 = 1.02; 10 % below: 1 − .1 · .1; 1/100: 1 − .02.
  known = {"target": 0.1, "horizon": 1000, "replies": 100}
  assert kl.next_beta(0.5, 0.2, **known) == pytest.approx(0.51)
  assert kl.next_beta(0.5, 0.09, **known) == pytest.approx(0.495)
  assert kl.next_beta(0.5, 0.001, **known) == pytest.approx(0.49)
  assert kl.next_beta(0.5, 0.1, **known) == 0.5
  assert kl.next_beta(0.5, NAN, **known) == 0.5  # nothing was sampled
  assert kl.next_beta(0.5, 0.2, **{**known, "horizon": 100}) == pytest.approx(0.6)
  assert kl.next_beta(0.5, 9.0, **{**known, "target": 0}) == 0.5
  found = kl.next_beta(0.1, 0.123456789, **known)
  assert json.loads(json.dumps(found)) == found  # as a checkpoint keeps it
