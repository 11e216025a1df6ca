import pytest

from stepaudio_jax.pricing import hlo, loops
from tests.pricing import text


def rounds(source: str) -> loops.Trips | None:
  module = hlo.parse(source)
  for computation in module.computations.values():
    for op in computation.ops.values():
      if op.code == "while":
        return loops.trips(module, computation, op)
  raise AssertionError("no loop")


@pytest.mark.parametrize("bound", ["constant(12)", text.CARRIED])
def test_counter_from_0_to_12(bound):
  assert rounds(text.loop(bound)) == loops.Trips(12)


@pytest.mark.parametrize(
  ("old", "new", "count"),
  [
    ("%start = s32[]{:T(128)} constant(0)", "%start = s32[] constant(3)", 9),
    ("direction=LT", "direction=LE", 13),  # 0 … 12
    ("%one = s32[]{:T(128)} constant(1)", "%one = s32[]{:T(128)} constant(5)", 3),
  ],
)
def test_start_step_and_direction(old, new, count):
  assert rounds(text.loop().replace(old, new)) == loops.Trips(count)


def test_a_countdown():
  source = text.loop("constant(0)").replace("direction=LT", "direction=GT")
  source = source.replace("constant(0)\n  %limit", "constant(7)\n  %limit")
  assert rounds(source.replace("add(%i, %one)", "subtract(%i, %one)")) == loops.Trips(7)


def test_a_comparison_in_a_fusion():
  inner = """\
%wrapped (q.0: s32[], q.1: s32[]) -> pred[] {
  %q.0 = s32[] parameter(0)
  %q.1 = s32[] parameter(1)
  ROOT %lt = pred[] compare(%q.1, %q.0), direction=LT
}

%condition"""
  source = text.loop().replace(
    "compare(%counter, %bound), direction=LT",
    "fusion(%bound, %counter), kind=kLoop, calls=%wrapped",
  )
  assert rounds(source.replace("%condition", inner, 1)) == loops.Trips(12)


def test_a_loop_that_may_end_earlier():
  """`counter < 12 and something of run time`: at most 12."""
  source = text.loop().replace(
    "ROOT %less =",
    "%other = pred[] custom-call(%c)\n  ROOT %both = pred[] and(%less, %other)\n"
    "  %less =",
  )
  assert rounds(source) == loops.Trips(12, at_most=True)


def test_a_bound_of_run_time_is_unknown():
  source = text.loop(text.CARRIED)
  source = source.replace(
    "%limit = s32[]{:T(128)} constant(12)", "%limit = s32[] reduce()"
  )
  assert rounds(source) is None


def test_a_bound_that_the_body_changes_is_unknown():
  source = text.loop(text.CARRIED).replace("%kept, %step)", "%kept, %next)")
  assert rounds(source) is None


def test_known_trip_count_is_believed():
  source = text.loop("parameter(1)").replace(
    "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"31"}}'
  )
  assert rounds(source) == loops.Trips(31)
