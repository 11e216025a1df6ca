from stepaudio_jax.pricing import hlo, traffic
from tests.pricing import text


def of(source: str, computation: str, name: str, **options) -> float:
  module = hlo.parse(source)
  where = module.computations[computation]
  return traffic.moved(module, where, where.ops[name], **options)


def test_a_fusion_reads_a_slice_of_its_stack():
  # x 256·512, one of 12 layers 512·128, out 256·128, all bf16; 4 bytes of the counter.
  expected = 2 * (256 * 512 + 512 * 128 + 256 * 128) + 4
  assert of(text.loop(), "body", "fusion.1") == expected


def test_an_update_in_place_moves_the_update():
  assert of(text.loop(), "body", "kept") == 2 * (2 * 256 * 128)


def test_what_lies_in_vmem_moves_nothing():
  source = text.program(
    "%p = f32[100]{0} parameter(0)", "ROOT %c = f32[100]{0:T(128)S(1)} copy(%p)"
  )
  assert of(source, "main", "c") == 400
  assert of(source, "main", "c", anywhere=True) == 800


def fused(*lines: str, operands: str, result: str) -> str:
  body = "\n".join(f"  {line}" for line in lines)
  before = f"%inner (p: f32[1]) -> f32[1] {{\n{body}\n}}\n"
  return text.program(
    "%a = f32[8,100]{1,0} parameter(0)",
    "%b = f32[100]{0} parameter(1)",
    "%i = s32[] parameter(2)",
    f"ROOT %f = {result} fusion({operands}), kind=kLoop, calls=%inner",
    before=before,
  )


def test_an_update_fused_with_what_it_writes():
  source = fused(
    "%p.0 = f32[8,100]{1,0} parameter(0)",
    "%p.1 = f32[100]{0} parameter(1)",
    "%p.2 = s32[] parameter(2)",
    "%twice = f32[100]{0} add(%p.1, %p.1)",
    "%row = f32[1,100]{1,0} bitcast(%twice)",
    "ROOT %u = f32[8,100]{1,0} dynamic-update-slice(%p.0, %row, %p.2, %p.2)",
    operands="%a, %b, %i",
    result="f32[8,100]{1,0}",
  )
  # b is read, one row written; the scalar's 4 bytes.
  assert of(source, "main", "f") == 400 + 400 + 4


def test_a_scatter_reads_what_it_adds_to():
  source = fused(
    "%p.0 = f32[8,100]{1,0} parameter(0)",
    "%p.1 = f32[100]{0} parameter(1)",
    "%p.2 = s32[] parameter(2)",
    "ROOT %s = f32[8,100]{1,0} scatter(%p.0, %p.2, %p.1)",
    operands="%a, %b, %i",
    result="f32[8,100]{1,0}",
  )
  assert of(source, "main", "f") == 400 + 400 + 400 + 4


def test_a_fusion_with_several_results():
  source = fused(
    "%p.0 = f32[8,100]{1,0} parameter(0)",
    "%sum = f32[100]{0} reduce(%p.0)",
    "%same = f32[8,100]{1,0} negate(%p.0)",
    "ROOT %t = (f32[100]{0}, f32[8,100]{1,0}) tuple(%sum, %same)",
    operands="%a",
    result="(f32[100]{0}, f32[8,100]{1,0:T(8,128)S(1)})",
  )
  # Read once, 3200; the large result stays in VMEM, so at most 400 are written.
  assert of(source, "main", "f") == 3200 + 400


def test_an_update_in_place_among_several_results():
  source = fused(
    "%p.0 = f32[8,100]{1,0} parameter(0)",
    "%p.1 = f32[100]{0} parameter(1)",
    "%p.2 = s32[] parameter(2)",
    "%row = f32[1,100]{1,0} bitcast(%p.1)",
    "%u = f32[8,100]{1,0} dynamic-update-slice(%p.0, %row, %p.2, %p.2)",
    "%twice = f32[100]{0} add(%p.1, %p.1)",
    "ROOT %t = (f32[8,100]{1,0}, f32[100]{0}) tuple(%u, %twice)",
    operands="%a, %b, %i",
    result="(f32[8,100]{1,0}, f32[100]{0})",
  )
  # b and the scalar are read; one row and the sum are written.
  assert of(source, "main", "f") == 400 + 4 + 400 + 400
