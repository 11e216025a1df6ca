"""A chip of round numbers: a cycle is 1 ns, HBM moves 80 bytes a ns that count, a ring
of four sends 2 bytes a ns."""

import pytest

from stepaudio_jax.pricing import chips, hlo, timeline, totals
from stepaudio_jax.pricing.collectives import Links
from tests.pricing import text

CHIP = chips.Chip(
  name="v5p",
  kind="test",
  peak=1e12,
  flops_per_cycle=1000,
  hbm_bytes=2**30,
  hbm_bandwidth=100e9,
  link_bandwidth=1e9,
  host_bandwidth=1e9,
  axes=1,
  ring=4,
)
LINKS = Links(CHIP, (4,), (True,))
NS = 1e-9


def priced(*lines: str, before: str = "", **options) -> totals.Totals:
  module = hlo.parse(text.program(*lines, before=before))
  return totals.totals(module, LINKS, **options)


def work(name: str, cycles: int, operand: str = "%v") -> str:
  """An operation of so many cycles on what lies in VMEM."""
  shape = "f32[100]{0:T(128)S(1)}"
  estimate = f'backend_config={{"estimated_cycles":"{cycles}"}}'
  return f"%{name} = {shape} multiply({operand}, {operand}), {estimate}"


V = "%v = f32[100]{0:T(128)S(1)} parameter(0)"
START = (
  "%p = f32[250]{0:T(128)S(1)} parameter(1)",
  "%g = (f32[250]{0}, f32[1000]{0}) all-gather-start(%p), replica_groups=[1,4]<=[4]",
)
DONE = "%d = f32[1000]{0} all-gather-done(%g)"
# 4000 bytes of the whole, of which three quarters leave a chip: 1500 ns.


@pytest.mark.parametrize(("cycles", "exposed"), [(400, 1100), (1500, 0), (9000, 0)])
def test_an_asynchronous_collective_hides_behind_the_core(cycles, exposed):
  found = priced(V, *START, work("w", cycles), DONE, work("after", 50))
  assert found.expected == pytest.approx((cycles + exposed + 50) * NS)
  assert found.exposed == pytest.approx(exposed * NS)
  assert found.overlapped == pytest.approx((1500 - exposed) * NS)
  assert found.pessimistic == pytest.approx((cycles + 1500 + 50) * NS)
  assert found.unpriced_share == 0
  assert not found.unpriced


def test_a_synchronous_collective_hides_nothing():
  gather = "%g = f32[1000]{0} all-gather(%v), replica_groups=[1,4]<=[4]"
  found = priced(V, work("w", 700), gather)
  assert found.exposed == pytest.approx(1500 * NS)
  assert found.expected == pytest.approx(2200 * NS)


def test_two_collectives_share_the_links():
  second = START[1].replace("%g", "%h")
  done = DONE.replace("%d", "%e").replace("%g", "%h")
  found = priced(V, *START, second, work("w", 2000), DONE, done)
  # The first takes 1500 of the 2000 ns, the second 500; 1000 are left to wait for.
  assert found.exposed == pytest.approx(1000 * NS)


@pytest.mark.parametrize(
  ("start", "done"),
  [
    ("async-start(%p), calls=%offloaded", "async-done"),
    ("call-start(%p), to_apply=%gather", "call-done"),
  ],
)
def test_a_collective_of_the_sparse_core(start, done):
  before = """\
%gather (q: f32[250]) -> f32[1000] {
  %q = f32[250]{0} parameter(0)
  ROOT %a = f32[1000]{0} all-gather(%q), replica_groups=[1,4]<=[4]
}

%offloaded (q: f32[250]) -> f32[1000] {
  %q = f32[250]{0} parameter(0)
  ROOT %c = f32[1000]{0} call(%q), to_apply=%gather
}
"""
  start = f"%s = ((f32[250]{{0}}), f32[1000]{{0}}) {start}"
  done = f"%d = f32[1000]{{0}} {done}(%s)"
  found = priced(V, START[0], start, work("w", 400), done, before=before)
  assert found.expected == pytest.approx(1500 * NS)
  assert found.exposed == pytest.approx(1100 * NS)


def test_a_collective_spread_over_matrix_products():
  """As on v5e: its start, two products that carry parts of it, and its end."""

  def part(name: str) -> str:
    return f"""\
%{name} (q: f32[250]) -> f32[1000] {{
  %q = f32[250]{{0}} parameter(0)
  ROOT %a = f32[1000]{{0}} all-gather(%q), channel_id=7, replica_groups=[1,4]<=[4], \
backend_config={{"async_collective_fusion_config":{{}}}}
}}
"""

  names = ("begin", "one", "two", "end")
  shape = "f32[1000]{0:T(128)S(1)}"
  estimate = {"one": 300, "two": 500}
  lines = [
    f"%{name}.f = {shape} fusion(%p), kind=kCustom, calls=%{name}"
    + (
      f', backend_config={{"estimated_cycles":"{estimate[name]}"}}'
      if name in estimate
      else ""
    )
    for name in names
  ]
  found = priced(START[0], *lines, before="\n".join(map(part, names)))
  assert found.expected == pytest.approx(1500 * NS)
  assert found.exposed == pytest.approx(700 * NS)
  assert found.overlapped == pytest.approx(800 * NS)


def test_a_prefetch_uses_what_the_core_leaves_of_hbm():
  # 16,000 bytes at 80 a ns: 200 ns. The core streams 8,000 meanwhile: 100 ns, of which
  # HBM (100 a ns) is busy 80; so 20 of the 200 are done, and the core waits for 180.
  found = priced(
    "%p = f32[4000]{0} parameter(0)",
    "%q = f32[1000]{0} parameter(1)",
    "%s = (f32[4000]{0:T(128)S(1)}, f32[4000]{0}, u32[]{:S(2)}) copy-start(%p)",
    '%w = f32[1000]{0} negate(%q), backend_config={"estimated_cycles":"120"}',
    "%d = f32[4000]{0:T(128)S(1)} copy-done(%s)",
  )
  assert found.expected == pytest.approx((100 + 180) * NS)
  assert found.by_kind["prefetch"] == pytest.approx(180 * NS)


def test_a_copy_to_the_host_takes_the_way_to_the_host():
  found = priced(
    "%p = f32[4000]{0} parameter(0)",
    "%s = (f32[4000]{0:S(5)}, f32[4000]{0}, u32[]{:S(2)}) copy-start(%p)",
    "%d = f32[4000]{0:S(5)} copy-done(%s)",
  )
  assert found.by_kind["host copy"] == pytest.approx(16000 * NS)


def test_a_slice_of_a_stack_on_the_host_is_all_that_travels():
  before = """\
%write (s: f32[9,4000], u: f32[1,4000], i: s32[]) -> f32[9,4000] {
  %s = f32[9,4000]{1,0} parameter(0)
  %u = f32[1,4000]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %w = f32[9,4000]{1,0} dynamic-update-slice(%s, %u, %i, %i)
}
"""
  found = priced(
    "%p = f32[9,4000]{1,0:S(5)} parameter(0)",
    "%u = f32[1,4000]{1,0} parameter(1)",
    "%i = s32[] parameter(2)",
    "%s = ((f32[9,4000]{1,0:S(5)}, f32[1,4000]{1,0}, s32[]), f32[9,4000]{1,0:S(5)}, "
    "u32[]{:S(2)}) async-start(%p, %u, %i), calls=%write",
    "%d = f32[9,4000]{1,0:S(5)} async-done(%s)",
    before=before,
  )
  assert found.by_kind["host copy"] == pytest.approx(16000 * NS)


def test_a_loop_counts_as_often_as_it_runs():
  found = totals.totals(hlo.parse(text.loop()), LINKS)
  flops = 12 * 2 * 256 * 512 * 128
  assert found.flops == flops
  assert found.loops == (("while.1", 12, False),)
  # 1750 cycles; the update moves 131,072 bytes without an estimate, at 80 a ns.
  assert found.expected == pytest.approx(12 * (1750 + 131072 / 80) * NS)
  # 33,554,432 flops would take longer than the cost model says: its word is the floor.
  update = 131072 / 100
  assert found.floor == pytest.approx(12 * (1750 + update) * NS)
  (dearest, _) = found.dearest[:2]
  assert (dearest.name, dearest.runs) == ("fusion.1", 12)


def test_a_loop_of_unknown_length_is_not_priced():
  source = text.loop("custom-call(%c)")
  found = totals.totals(hlo.parse(source), LINKS)
  assert found.unpriced_share == pytest.approx(1)
  assert found.loops == (("while.1", 1, True),)
  known = totals.totals(hlo.parse(source), LINKS, lambda name: 5)
  assert known.unpriced_share == 0
  assert known.expected == pytest.approx(5 * found.expected)


def test_what_nothing_prices_is_told():
  # 4,096 + 4,096 bytes at 80 a ns beside 897.6 ns that are known.
  strange = '%x = f32[1024]{0} custom-call(%v2), custom_call_target="Strange"'
  found = priced(V, "%v2 = f32[1024]{0} parameter(1)", work("w", 1000), strange)
  assert found.unpriced == ("x",)
  assert found.unpriced_share == pytest.approx(102.4 / 1102.4)


def test_of_two_branches_the_dearer():
  branches = "".join(
    f"%{name} (v: f32[100]) -> f32[100] {{\n  {V}\n  ROOT {work('w', cycles)}\n}}\n\n"
    for name, cycles in (("left", 70), ("right", 90))
  )
  found = priced(
    V,
    "%i = s32[] parameter(1)",
    "%c = f32[100]{0} conditional(%i, %v, %v), branch_computations={%left, %right}",
    before=branches,
  )
  assert found.expected == pytest.approx(90 * NS)


def test_background_work_goes_on_during_a_loop():
  """Started before the loop, waited for behind it."""
  source = text.loop().replace(
    "%while.1 =",
    f"{START[0]}\n  {START[1]}\n  %while.1 =".replace("parameter(1)", "parameter(2)"),
  )
  source = source.replace("  ROOT %result", f"  {DONE}\n  ROOT %result")
  found = totals.totals(hlo.parse(source), LINKS)
  assert found.exposed == 0
  assert found.overlapped == pytest.approx(1500 * NS)


def test_lines_carry_the_model_s_own_names():
  lines = timeline.schedule(hlo.parse(text.loop()), LINKS).lines
  assert "jit(f)/mlp/dot_general" in [line.source for line in lines]
