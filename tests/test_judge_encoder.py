"""The policy and the reward model must hear alike; where they do not, why."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax.rollout import judge
from stepaudio_jax.text import tokenizer as tokenizers


def checked(theirs, ours):
  tokenizer = tokenizers.load("tiny")
  loaded = types.SimpleNamespace(
    params={"encoder": {"kernel": theirs}}, tokenizer=tokenizer
  )
  judge._check(loaded, {"kernel": ours}, tokenizer)


KERNEL = np.linspace(0.1, 1.7, 60, dtype=np.float32).reshape(6, 10)
ROUNDED = np.asarray(jnp.asarray(KERNEL).astype(jnp.bfloat16))


def test_one_encoder_in_either_dtype_is_no_fault():
  checked(KERNEL, jnp.asarray(KERNEL))
  checked(ROUNDED, jnp.asarray(ROUNDED).astype(jnp.float32))


@pytest.mark.parametrize(
  ("theirs", "ours", "which"),
  [
    (ROUNDED, KERNEL, "reward model"),
    (ROUNDED.astype(np.float32), KERNEL, "reward model"),
    (KERNEL, ROUNDED.astype(np.float32), "policy"),
  ],
)
def test_one_that_was_rounded_is_named_with_the_cure(theirs, ours, which):
  with pytest.raises(ValueError, match="is not the policy's") as error:
    checked(theirs, jnp.asarray(ours))
  assert f"the {which}'s was rounded, as by an export" in str(error.value)
  assert "again with --dtype float32" in str(error.value)


def test_another_encoder_is_not_called_rounded():
  with pytest.raises(ValueError, match="both must start from one pre-") as error:
    checked(KERNEL + np.float32(0.1), jnp.asarray(KERNEL))
  assert "round" not in str(error.value)
