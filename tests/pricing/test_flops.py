import pytest

from stepaudio_jax.pricing import flops, hlo
from tests.pricing import text


def of(left: str, right: str, line: str) -> float:
  source = text.program(
    f"%a = {left} parameter(0)", f"%b = {right} parameter(1)", f"ROOT %c = {line}"
  )
  computation = hlo.parse(source).computations["main"]
  return flops.of_op(computation, computation.root)


def test_a_dot():
  # 3·5 outputs, 7·2 products each.
  line = (
    "f32[3,5]{1,0} dot(%a, %b), lhs_contracting_dims={1,2}, rhs_contracting_dims={0,1}"
  )
  assert of("f32[3,7,2]{2,1,0}", "f32[7,2,5]{2,1,0}", line) == 2 * 3 * 5 * 7 * 2


def test_a_product_written_as_a_convolution():
  line = "bf16[3,5]{1,0} convolution(%a, %b), dim_labels=bf_io->bf"
  assert of("bf16[3,7]{1,0}", "bf16[7,5]{1,0}", line) == 2 * 3 * 7 * 5


def test_a_batched_product_is_counted_without_the_padding_around_it():
  # [8, 3, 7] × [8, 7, 5] by batch. XLA: a window of 8 with stride 7 over 8 inputs
  # dilated by 8. Output 0 stands at −0 … and meets one real input, as every other does.
  line = (
    "bf16[8,3,5]{2,1,0} convolution(%a, %b), "
    "window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf"
  )
  assert of("bf16[8,3,7]{2,1,0}", "bf16[8,7,5]{2,1,0}", line) == 2 * 8 * 3 * 7 * 5


def test_a_window_over_the_edge():
  # Width 3, one zero on either side, 4 inputs: 2 + 3 + 3 + 2 taps on real ones.
  line = (
    "f32[2,4,6]{2,1,0} convolution(%a, %b), window={size=3 pad=1_1}, "
    "dim_labels=b0f_0io->b0f"
  )
  assert of("f32[2,4,5]{2,1,0}", "f32[3,5,6]{2,1,0}", line) == 2 * 2 * 10 * 5 * 6


def test_a_window_that_contracts():
  # x·wᵀ over 64 rows as a window of 64: one output, 64 taps.
  line = (
    "f32[4,5,1]{1,0,2} convolution(%a, %b), window={size=64}, dim_labels=0fb_0io->bf0"
  )
  assert of("f32[64,8,4]{2,1,0}", "f32[64,8,5]{2,1,0}", line) == 2 * 4 * 5 * 64 * 8


@pytest.mark.parametrize("stride", [1, 2])
def test_strides_against_counting(stride):
  # 9 inputs, window 4, two zeros before: by hand over all outputs and taps.
  outputs = (9 + 2 - 4) // stride + 1
  taps = sum(
    0 <= place * stride + tap - 2 < 9 for place in range(outputs) for tap in range(4)
  )
  line = (
    f"f32[1,{outputs},1]{{2,1,0}} convolution(%a, %b), "
    f"window={{size=4 stride={stride} pad=2_0}}, dim_labels=b0f_0io->b0f"
  )
  assert of("f32[1,9,1]{2,1,0}", "f32[4,1,1]{2,1,0}", line) == 2 * taps


def test_inside_a_fusion():
  module = hlo.parse(text.loop())
  product = module.computations["product"]
  assert flops.inside(module, product) == 2 * 256 * 512 * 128
