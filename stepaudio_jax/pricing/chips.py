"""TPU generations: what one chip can do at most, as published.

Compute and HBM's bandwidth: the "System architecture" pages of Google Cloud's TPU
documentation (docs.cloud.google.com/tpu/docs/v5p, …/v5e, …/v6e). Bandwidth of links and
of PCIe: "How to Scale Your Model", chapter "TPUs" (jax-ml.github.io/scaling-book/tpus).
Clock: peak / flops of all matrix units in a cycle; with these, libtpu's own cycle
counts give large products 90–98 % of the peak and never more.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip, all its cores together.

  Attributes:
    kind: `device_kind` of jax.
    peak: bf16 flops a second.
    flops_per_cycle: of all matrix units.
    hbm_bytes: what libtpu lets a program use, by its own error message.
    hbm_bandwidth: bytes a second.
    link_bandwidth: bytes a second of one link in one direction.
    host_bandwidth: bytes a second between HBM and the host's memory (PCIe).
    axes: of the torus; each gives a chip two links.
    ring: chips along an axis of a slice that closes to a ring, or a multiple of them.
  """

  name: str
  kind: str
  peak: float
  flops_per_cycle: int
  hbm_bytes: int
  hbm_bandwidth: float
  link_bandwidth: float
  host_bandwidth: float
  axes: int
  ring: int

  @property
  def clock(self) -> float:
    """Cycles a second."""
    return self.peak / self.flops_per_cycle


_GIB = 2**30
CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      name="v5p",
      kind="TPU v5",
      peak=459e12,
      flops_per_cycle=2 * 4 * 128 * 128 * 2,  # cores × units × 128² × 2
      hbm_bytes=int(95.74 * _GIB),
      hbm_bandwidth=2765e9,
      link_bandwidth=90e9,
      host_bandwidth=16e9,
      axes=3,
      ring=4,
    ),
    Chip(
      name="v5e",
      kind="TPU v5 lite",
      peak=197e12,
      flops_per_cycle=4 * 128 * 128 * 2,
      hbm_bytes=int(15.75 * _GIB),
      hbm_bandwidth=819e9,
      link_bandwidth=45e9,
      host_bandwidth=16e9,
      axes=2,
      ring=16,
    ),
    Chip(
      name="v6e",
      kind="TPU v6 lite",
      peak=918e12,
      flops_per_cycle=4 * 256 * 256 * 2,
      hbm_bytes=int(31.25 * _GIB),
      hbm_bandwidth=1640e9,
      link_bandwidth=90e9,
      host_bandwidth=32e9,
      axes=2,
      ring=16,
    ),
  )
}


def chip(name: str) -> Chip:
  """The chip called "v5p", …; an unknown name raises and lists the choices."""
  if name not in CHIPS:
    raise ValueError(f"unknown chip {name!r}; the choices are {sorted(CHIPS)}")
  return CHIPS[name]
