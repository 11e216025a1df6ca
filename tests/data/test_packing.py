"""Packed replies: the plan by hand, and each token's score beside the unpacked."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from stepaudio_jax import policy
from stepaudio_jax.core import packs
from stepaudio_jax.data import packing
from stepaudio_jax.models import step_audio
from tests import mesh_child, stages

# One reply to the second prompt is missing.
RAGGED = dataclasses.replace(
  stages.replies(), count_BQ=stages.replies().count_BQ.copy()
)
RAGGED.count_BQ[1, 2] = 0


def test_the_longest_first_into_the_first_row_with_room():
  # 10 opens a row; 7 does not fit beside it (room 2), nor 6; 5 fits beside 7 (12), and
  # 4 beside 6; 2 fits beside 10; 0 is no reply.
  found = packing.rows_of(np.array([[5, 7, 0], [10, 4, 6], [2, 0, 0]]), row_tokens=12)
  assert found == [[(1, 0), (2, 0)], [(0, 1), (0, 0)], [(1, 2), (1, 1)]]


def test_shapes_are_rounded_to_eighths_of_a_power_of_two():
  wanted = {0: 1, 1: 1, 8: 8, 9: 9, 16: 16, 17: 18, 31: 32, 33: 36, 100: 104}
  assert {n: packing.rounded(n) for n in wanted} == wanted


def test_declared_rows_are_the_only_shapes_up_to_the_last(caplog):
  sizes = [
    packing.room(rows, clips, (4, 6)) for rows in (1, 4, 5, 6) for clips in (0, 3)
  ]
  assert {*sizes} == {(4, 1), (4, 4), (6, 1), (6, 4)}
  assert packing.room(9, 17) == (9, 18)
  assert packing.packed(RAGGED, 4, 36, 0).batch.token_BT.shape[:2] == (4, 16)
  packed = packing.packed(RAGGED, 4, 36, 0, row_counts=(15, 17))
  assert packed.batch.token_BT.shape[:2] == (4, 17)
  with caplog.at_level("WARNING"):
    assert packing.room(9, 17, (4, 6)) == (9, 18)
  assert "9 rows, more than data.pack_rows=(4, 6)" in caplog.text


def test_every_token_finds_its_place_behind_its_own_prompt_and_audio():
  packed = packing.packed(RAGGED, packs=4, row_tokens=36, pad_id=0)
  assert packed.prefix_PBT is None
  batch, share = packed.batch, stages.ROWS // 4
  flat = {
    name: getattr(batch, name).reshape(4, -1)
    for name in ("token_BT", "segment_BT", "position_BT", "example_BT")
  }
  seen = []
  for b in range(stages.ROWS):
    known = int((RAGGED.prompts.segment_BT[b] > 0).sum())
    for q in range(stages.REPLIES):
      count = RAGGED.count_BQ[b, q]
      pack, row = b // share, packed.slot_PBQT[b // share, b % share, q, :count]
      assert (flat["token_BT"][pack, row] == RAGGED.token_BQT[b, q, :count]).all()
      assert (flat["position_BT"][pack, row] == known + np.arange(count)).all()
      assert (flat["example_BT"][pack, row] == b).all()
      if not count:
        continue
      start = row[0] - known
      seen += [(pack, int(slot)) for slot in range(start, row[0] + count)]
      whole = flat["segment_BT"][pack, start : row[0] + count]
      assert len({*whole.tolist()} - {0}) == 1
      prompt_T = flat["token_BT"][pack, start : row[0]]
      assert (prompt_T == RAGGED.prompts.token_BT[b, :known]).all()
      line, column = divmod(int(start), 36)
      audio_T = batch.audio_BT[pack, line, column : column + known]
      slots = batch.frames_BRUE[pack, line].reshape(-1, 2, stages.SIZE.encoder_width)
      mine = RAGGED.prompts.frames_BRUE[b].reshape(-1, 2, stages.SIZE.encoder_width)
      own_T = RAGGED.prompts.audio_BT[b, :known]
      assert ((audio_T >= 0) == (own_T >= 0)).all()
      np.testing.assert_array_equal(
        slots[audio_T[audio_T >= 0]], mine[own_T[own_T >= 0]]
      )
  assert len(seen) == len({*seen}) == (batch.segment_BT > 0).sum()


def test_replies_that_share_a_prompt_by_hand():
  """Prompts of 3 and 4 tokens, replies of 2, 4, 1 and of 3, then of 1; rows of 9.

  The first prompt takes 4 and 2, which fills a row; the reply of 1 needs a copy (4
  tokens), for which there is no room behind the second prompt's 7, but behind its 5.
  """
  shapes = {"prompt_B": np.asarray([3, 4]), "row_tokens": 9}
  count_BQ = np.asarray([[2, 4, 1], [3, 0, 0]])
  assert packing._shared_rows(count_BQ=count_BQ, **shapes) == [
    [(0, [1, 0])],
    [(1, [0])],
    [(0, [2])],
  ]
  count_BQ = np.asarray([[2, 4, 1], [0, 1, 0]])
  assert packing._shared_rows(count_BQ=count_BQ, **shapes) == [
    [(0, [1, 0])],
    [(1, [1]), (0, [2])],
  ]


def test_a_prompt_stands_once_in_a_row_before_its_replies():
  packed = packing.packed(RAGGED, packs=4, row_tokens=64, pad_id=0, shared=True)
  copies = packing.packed(RAGGED, packs=4, row_tokens=64, pad_id=0)
  assert packed.batch.token_BT.size < copies.batch.token_BT.size / 1.5
  batch, share = packed.batch, stages.ROWS // 4
  names = ("token_BT", "segment_BT", "position_BT", "example_BT")
  flat = {name: getattr(batch, name).reshape(4, -1) for name in names}
  flat["prefix_PBT"] = packed.prefix_PBT.reshape(4, -1)
  used = set()
  for b, q in np.ndindex(stages.ROWS, stages.REPLIES):
    prompts, count = RAGGED.prompts, RAGGED.count_BQ[b, q]
    known = int((prompts.segment_BT[b] > 0).sum())
    pack, place = b // share, (b // share, b % share, q)
    slots, last = packed.slot_PBQT[place][:count], packed.last_PBQ[place]
    if not count:
      assert last == 0
      continue
    of = {name: x[pack] for name, x in flat.items()}
    prompt = slice(last - known + 1, last + 1)
    assert (of["token_BT"][slots] == RAGGED.token_BQT[b, q, :count]).all()
    assert (of["position_BT"][slots] == known + np.arange(count)).all()
    assert (of["token_BT"][prompt] == prompts.token_BT[b, :known]).all()
    assert (of["position_BT"][prompt] == np.arange(known)).all()
    assert not of["prefix_PBT"][prompt].any()
    shared = {*of["segment_BT"][prompt].tolist()}
    assert {*of["prefix_PBT"][slots].tolist()} == shared
    assert len(shared) == 1
    own = {*of["segment_BT"][slots].tolist()}
    assert len(own) == 1
    assert own != shared
    assert last // 64 == slots[0] // 64 == slots[-1] // 64  # one row
    used |= {(pack, int(slot)) for slot in [*range(last - known + 1, last + 1), *slots]}
    line, column = divmod(prompt.start, 64)
    audio_T = batch.audio_BT[pack, line, column : column + known]
    clips = batch.frames_BRUE[pack, line].reshape(-1, 2, stages.SIZE.encoder_width)
    mine = prompts.frames_BRUE[b].reshape(-1, 2, stages.SIZE.encoder_width)
    own_T = prompts.audio_BT[b, :known]
    np.testing.assert_array_equal(clips[audio_T[audio_T >= 0]], mine[own_T[own_T >= 0]])
  assert len(used) == (batch.segment_BT > 0).sum()
  segments = (flat["segment_BT"] > 0).sum()
  lengths = (RAGGED.prompts.segment_BT > 0).sum()
  assert segments < RAGGED.count_BQ.sum() + 1.5 * lengths


@pytest.mark.parametrize("name", ["reward_model", "grpo", "ppo"])
def test_sharing_a_prompt_changes_no_loss_and_no_gradient(name):
  """Audio in every prompt, ragged replies, some missing; critic and policy."""
  found = {}
  for packed in (False, True, "prompts"):
    one = stages.STAGES[name](packed=packed)
    total = jax.value_and_grad(lambda p, one=one: one.loss_fn(p, one.batch, None)[0])
    found[packed] = jax.device_get(jax.jit(total)(one.params))
  loss, gradient = found.pop("prompts")
  for other, wanted in found.values():
    assert loss == pytest.approx(other, rel=1e-5)
    far = mesh_child.furthest(
      {k: v for k, v in gradient.items() if k != "encoder"},
      {k: v for k, v in wanted.items() if k != "encoder"},
    )
    assert far[0] < 1e-5, far


@pytest.mark.parametrize(
  ("count", "row_tokens", "message"),
  [
    (3, 36, "16 prompts cannot be shared out to 3 packs"),
    (4, 20, r"reply \d of prompt \d+ \(example \d+\) needs \d+ tokens, a row has 20"),
  ],
)
def test_what_does_not_fit_is_named(count, row_tokens, message):
  with pytest.raises(ValueError, match=message):
    packing.packed(RAGGED, count, row_tokens, pad_id=0)


@pytest.mark.parametrize("shared", [False, True])
def test_no_replys_score_depends_on_what_it_is_packed_with(shared):
  params = step_audio.init_params(jax.random.key(0), stages.SIZE)
  measure = functools.partial(policy.measured, model=stages.model(), temperature=0.7)
  alone = measure(params, RAGGED)
  packed = packing.packed(RAGGED, packs=2, row_tokens=48, pad_id=0, shared=shared)
  assert packed.batch.token_BT.shape[1] * 2 < stages.ROWS * stages.REPLIES / 1.3
  beside = measure(params, packed)
  token_BQT, count_BQ = packs.laid_out(packed)
  assert (token_BQT == RAGGED.token_BQT).all()
  said_BQT = np.arange(stages.LENGTH) < count_BQ[..., None]
  for name in ("logprob_BQT", "entropy_BQT"):
    a, b = (np.where(said_BQT, getattr(x, name), 0.0) for x in (alone, beside))
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=2e-6)
