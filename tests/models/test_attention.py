"""The kernels of TPU and GPU against the plain form, forward and backward."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax.models import attention, splash
from tests.flags import EIGHT_DEVICES, QUICK

ROWS, LENGTH, HEADS, KV_HEADS, WIDTH = 2, 200, 4, 2, 128
OTHERS = {
  "splash": functools.partial(attention.splash, interpret=True),
  "fused": functools.partial(attention.fused, implementation="xla"),
}


def operands(rows=ROWS, length=LENGTH, seed=0):
  """Queries, keys, values, and rows of two or three segments, the last one padded."""
  rng = np.random.default_rng(seed)
  shapes = ((rows, length, HEADS, WIDTH), *[(rows, KV_HEADS, length, WIDTH)] * 2)
  arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
  segment_BT = np.ones((rows, length), np.int32)
  segment_BT[:, length // 3 :] = 2
  segment_BT[-1, length // 2 :] = 3
  segment_BT[-1, -length // 8 :] = 0
  return (*arrays, jnp.asarray(segment_BT), jnp.asarray(segment_BT))


def weighted(attend, causal):
  """A scalar of all rows that count, its value and its gradient."""

  def total(q, k, v, segment, keys):
    out = attend(q, k, v, segment, keys, causal=causal)
    weight = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
    return jnp.where((segment > 0)[..., None, None], out * weight, 0.0).sum()

  return jax.value_and_grad(total, argnums=(0, 1, 2))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", [*OTHERS])
def test_a_kernel_does_what_the_plain_form_does(name, causal):
  wanted, wanted_grads = weighted(attention.attend, causal)(*operands())
  found, grads = weighted(OTHERS[name], causal)(*operands())
  assert float(found) == pytest.approx(float(wanted), abs=2e-3)
  for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
    np.testing.assert_allclose(grad, wanted_grad, atol=2e-5)


def test_a_recipes_kernel_is_called_and_never_beside_a_past(monkeypatch):
  calls = []
  monkeypatch.setattr(attention, "splash", lambda *a, causal: calls.append(causal))
  q, k, v, segment, _ = operands()
  attention.attend(q, k, v, segment, segment, causal=True, kernel="splash")
  assert calls == [True]
  past = ((k, v, attention.visible(segment, segment)),)
  attention.attend(q, k, v, segment, segment, causal=True, past=past, kernel="splash")
  assert calls == [True]


def prefixed():
  """The operands, and segment 2 also seen by what follows it but the padding."""
  q, k, v, segment, _ = operands()
  slot_BT = np.arange(LENGTH)[None]
  later_BT = (slot_BT > LENGTH // 2) & (np.asarray(segment) > 0)
  own = jnp.where(later_BT, 3 + (slot_BT > 150), segment)
  return (q, k, v, own, own), jnp.where(later_BT, 2, 0)


def test_a_query_sees_its_own_segment_and_its_prefix_up_to_its_slot():
  segment_BT = jnp.asarray([[1, 1, 2, 2, 3, 4, 4, 0]])
  prefix_BT = jnp.asarray([[0, 0, 1, 1, 1, 0, 0, 0]])
  found = attention.own_visible(
    segment_BT, segment_BT, causal=True, prefix_BT=prefix_BT
  )[0]
  wanted = ["x.......", "xx......", "xxx.....", "xxxx....", "xx..x..."]
  wanted += [".....x..", ".....xx.", "........"]
  assert ["".join(".x"[int(seen)] for seen in row) for row in found] == wanted


@pytest.mark.parametrize(
  "other",
  [
    functools.partial(attention.fused, implementation="xla"),
    functools.partial(attention._in_blocks, block=64),
  ],
  ids=["fused", "in blocks"],
)
def test_with_a_prefix_too(other):
  given, prefix_BT = prefixed()
  known = functools.partial(functools.partial, prefix_BT=prefix_BT)
  wanted, wanted_grads = weighted(known(attention.attend), True)(*given)
  found, grads = weighted(known(other), True)(*given)
  without = weighted(attention.attend, True)(*given)[0]
  assert abs(float(wanted) - float(without)) > 0.1
  assert float(found) == pytest.approx(float(wanted), abs=2e-3)
  for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
    np.testing.assert_allclose(grad, wanted_grad, atol=2e-5)


def test_blocks_divide_the_length():
  assert [splash._block(n) for n in (128, 4096, 1280, 2304)] == [128, 1024, 640, 768]
  with pytest.raises(ValueError, match="200 positions on a device are no multiple"):
    splash._block(200)


CHILD = """
import functools, json
import jax, jax.numpy as jnp, numpy as np
from stepaudio_jax import meshes, sharding
from stepaudio_jax.models import attention
from tests.models import test_attention as here

mesh = meshes.mesh({"data": 1, "fsdp": 2, "tensor": 2, "context": 2})
given = here.operands(length=512)
wanted, wanted_grads = jax.jit(here.weighted(attention.attend, True))(*given)
with sharding.over(mesh):
  split = jax.jit(here.weighted(here.OTHERS["splash"], True))
  found, grads = split(*given)
gaps = [float(jnp.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(grads, wanted_grads)]
print(json.dumps({"devices": jax.device_count(), "gap": float(found) - float(wanted),
                  "gaps": gaps}))
"""


def test_split_over_rows_heads_and_length_it_does_the_same():
  flags = f"{EIGHT_DEVICES} {QUICK}"
  done = subprocess.run(
    [sys.executable, "-c", CHILD],
    env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found["devices"] == 8
  assert abs(found["gap"]) < 5e-3
  assert np.max(found["gaps"]) < 2e-5
