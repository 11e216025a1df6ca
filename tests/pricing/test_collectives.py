import pytest

from stepaudio_jax.pricing import chips, collectives, hlo
from stepaudio_jax.pricing.collectives import Links
from tests.pricing import text

POD = Links(chips.chip("v5p"), (4, 4, 4), (True, True, True))
BOARD = Links(chips.chip("v5e"), (4, 4), (False, False))


def of(line: str, operand: str = "bf16[10,64]{1,0}") -> collectives.Collective:
  source = text.program(f"%a = {operand} parameter(0)", f"ROOT %c = {line}")
  computation = hlo.parse(source).computations["main"]
  return collectives.collective(computation, computation.root, 64)


GROUPS = (
  "replica_groups=[16,4]<=[64]",
  "replica_groups={{0,1,2,3},{4,5,6,7}}",
  "replica_groups=mesh['axis_0'=2,'axis_1'=2,'axis_2'=16] {'axis_0','axis_1'}",
  "replica_groups=mesh['axis_0'=4,'axis_1'=16], device_ids=([4,4]T(1,0)) {'axis_0'}",
)


@pytest.mark.parametrize("groups", GROUPS)
def test_all_gather_among_four(groups):
  found = of(f"bf16[40,64]{{1,0}} all-gather(%a), channel_id=7, {groups}")
  # 40·64·2 bytes arrive; a chip sends three quarters of them on.
  assert found == collectives.Collective("all-gather", 4, 3840, 7)
  # One axis of 4 closes to a ring: two links of 90 GB/s.
  assert found.seconds(POD) == pytest.approx(3840 / 180e9)
  # On a v5e board the axis is a line: one of 45 GB/s.
  assert found.seconds(BOARD) == pytest.approx(3840 / 45e9)


def test_a_start_gives_its_operand_back():
  line = (
    "(bf16[10,64]{1,0}, bf16[40,64]{1,0}) all-gather-start(%a), channel_id=7, "
    + GROUPS[0]
  )
  assert of(line).sent == 3840


def test_reduce_scatter_and_all_reduce():
  line = "bf16[10,4]{1,0} reduce-scatter(%a), replica_groups=[4,16]<=[64], to_apply=%s"
  found = of(line)
  assert found == collectives.Collective("reduce-scatter", 16, 1200, None)
  assert found.seconds(POD) == pytest.approx(1200 / (4 * 90e9))  # two axes of the pod
  line = "bf16[10,64]{1,0} all-reduce(%a), replica_groups=[1,64]<=[64], to_apply=%s"
  assert of(line).sent == 2 * 1280 * 63 / 64
  assert of(line).seconds(POD) == pytest.approx(2520 / (6 * 90e9))


def test_no_groups_are_one_of_all():
  line = "bf16[10,64]{1,0} all-reduce(%a), replica_groups={}, to_apply=%s"
  assert of(line) == collectives.Collective("all-reduce", 64, 2520, None)


def test_all_to_all_travels():
  line = "bf16[10,64]{1,0} all-to-all(%a), replica_groups=[4,16]<=[64]"
  # 1200 bytes go a quarter of two rings of 4 each, over two axes' four links.
  assert of(line).seconds(POD) == pytest.approx(1200 * (1 + 1) / (4 * 90e9))


def test_a_part_of_an_axis_is_no_ring():
  pod = Links(chips.chip("v6e"), (16, 16), (True, True))
  line = "bf16[10,64]{1,0} all-reduce(%a), replica_groups=[8,8]<=[64], to_apply=%s"
  # 8 of a row of 16: one link on either side of each chip, 2·1280·7/8 bytes.
  assert of(line).seconds(pod) == pytest.approx(2240 / 90e9)
  # A ring of 4 by 2 of the next axis: two links and one.
  assert of(line).seconds(POD) == pytest.approx(2240 / (3 * 90e9))


def test_a_permutation_takes_one_link():
  line = (
    "(bf16[10,64]{1,0}, bf16[10,64]{1,0}, u32[], u32[]) collective-permute-start(%a), "
    "source_target_pairs={{0,1},{1,0}}"
  )
  assert of(line) == collectives.Collective("collective-permute", 2, 1280, None)
  assert of(line).seconds(POD) == pytest.approx(1280 / 90e9)


def test_groups_that_cannot_be_read():
  with pytest.raises(ValueError, match="groups"):
    of("bf16[10,64]{1,0} all-reduce(%a), replica_groups=what")
