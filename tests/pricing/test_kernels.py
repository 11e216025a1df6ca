import pytest

from stepaudio_jax.pricing import chips, hlo, kernels
from tests.pricing import text

V5P = chips.chip("v5p")


def call(
  name: str, *, blocks: str, ids: str = "", positions: bool = True, results: int = 4
) -> str:
  """Splash attention over q [2, 6, 4096, 128] and k, v [2, 3, 4096, 128]."""
  operands = ["%mask", "%q", "%k", "%v", *(["%seg", "%seg"] if ids else [])]
  operands += ["%place"] if positions else []
  shape = ", ".join(["bf16[2,3,4096,128]{3,2,1,0}"] * results)
  return text.program(
    "%mask = s8[1,4,4]{2,1,0} parameter(0)",
    "%q = bf16[2,6,4096,128]{3,2,1,0} parameter(1)",
    "%k = bf16[2,3,4096,128]{3,2,1,0} parameter(2)",
    "%v = bf16[2,3,4096,128]{3,2,1,0} parameter(3)",
    "%seg = s32[2,4096,128]{2,1,0} parameter(4)",
    "%place = s32[4096,128]{1,0} parameter(5)",
    f"ROOT %{name}.1 = ({shape}) custom-call({', '.join(operands)}), "
    'custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={\n'
    f'"xprof_metadata":"{blocks}"\n}}}}, backend_config={{}}',
  )


def of(source: str) -> kernels.Kernel | None:
  computation = hlo.parse(source).computations["main"]
  return kernels.kernel(computation, computation.root, V5P)


FORWARD = r"{\"block_q\": 1024, \"block_kv\": 1024}"
DKV = r"{\"block_q_dkv\": 1024, \"block_kv_dkv\": 1024}"
# 4 × 4 blocks of 1024², of which a causal mask runs 10; 2 rows × 6 heads.
BLOCK = 2 * 1024 * 1024 * 128 * 2 * 6


def test_a_causal_forward_pass():
  found = of(call("splash_mha_fwd_residuals", blocks=FORWARD))
  assert found == kernels.Kernel(2 * 10 * BLOCK, 0.63)
  assert found.seconds(V5P) == pytest.approx(2 * 10 * BLOCK / 0.63 / 459e12)


def test_segments_are_no_causal_mask():
  blocks = {"blocks": FORWARD, "ids": "some"}
  name = "splash_mha_fwd_segmented_no_residuals"
  assert of(call(name, **blocks)).flops == 2 * 10 * BLOCK
  assert of(call(name, **blocks, positions=False)).flops == 2 * 16 * BLOCK


def test_the_backward_pass_in_two_kernels_and_in_one():
  name = "splash_mha_dkv_no_residuals"
  assert of(call(name, blocks=DKV)) == kernels.Kernel(4 * 10 * BLOCK, 0.90)
  assert of(call(name, blocks=DKV, results=6)).flops == 5 * 10 * BLOCK
  blocks = DKV.replace("dkv", "dq")
  found = of(call("splash_mha_dq_no_residuals", blocks=blocks))
  assert found == kernels.Kernel(3 * 10 * BLOCK, 0.92)


def test_blocks_of_unequal_sides():
  # 512 queries × 2048 keys: rows 0…3 see one block, 4…7 two: 12 of 16 in all.
  blocks = FORWARD.replace("1024", "512", 1).replace("1024", "2048")
  found = of(call("splash_mqa_fwd_no_residuals", blocks=blocks))
  assert found.flops == 2 * 12 * BLOCK


def test_another_kernel_is_not_known():
  assert of(call("my_kernel", blocks=FORWARD)) is None
