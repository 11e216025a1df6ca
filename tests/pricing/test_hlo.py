import pytest

from stepaudio_jax.pricing import hlo
from tests.pricing import text


def test_computations_operations_and_their_parts():
  module = hlo.parse(text.loop())
  assert [*module.computations] == ["product", "body", "condition", "main"]
  main = module.computations[module.entry]
  assert [op.code for op in main.ops.values()] == [
    *("parameter", "parameter", "constant", "constant", "custom-call"),
    *("tuple", "while", "get-tuple-element"),
  ]
  assert main.root.name == "result"
  fusion = module.computations["body"].ops["fusion.1"]
  assert fusion.operands == ("x", "w", "i")
  assert fusion.cycles == 1750
  assert fusion.source == "jit(f)/mlp/dot_general"
  assert module.called(fusion).name == "product"
  assert module.called(fusion).parameters == {0: "p.0", 1: "p.1", 2: "p.2"}


def test_bytes_and_memory_of_arrays():
  line = (
    "%p = (bf16[4,8]{1,0:T(8,128)(2,1)S(1)}, s4[6]{0}, pred[3]{0}, f8e4m3fn[5]{0}, "
    "f32[]{:T(128)S(6)}, f32[2]{0:S(5)}) parameter(0)"
  )
  (op,) = hlo.parse(text.program(line)).computations["main"].ops.values()
  assert [array.bytes for array in op.arrays] == [64, 3, 3, 5, 4, 8]
  assert [array.space for array in op.arrays] == [hlo.VMEM, 0, 0, 0, 6, hlo.HOST]


def test_an_operation_over_several_lines():
  """As kernels are printed: a line of theirs may even begin with a closing brace."""
  lines = (
    '%k = f32[8]{0} custom-call(%p), custom_call_target="tpu_custom_call", a={b={',
    '"c":"d"',
    "}}, backend_config={}",
    "%after = f32[8]{0} copy(%k)",
  )
  source = text.program("%p = f32[8]{0} parameter(0)", *lines)
  source = source.replace('\n  "c"', '\n"c"').replace("\n  }}", "\n}}")
  ops = hlo.parse(source).computations["main"].ops
  assert [*ops] == ["p", "k", "after"]
  assert ops["k"].find(r'"c":"(\w)"') == "d"


def test_no_estimate_is_none():
  for number, cycles in ((17, 17), (2**63 - 1, None)):
    estimate = f'backend_config={{"estimated_cycles":"{number}"}}'
    source = text.program(f"%p = f32[8]{{0}} copy(%q), {estimate}")
    assert hlo.parse(source).computations["main"].ops["p"].cycles == cycles


def test_what_is_no_program_is_an_error():
  with pytest.raises(ValueError, match="no ENTRY"):
    hlo.parse("module @jit_f {}")
