"""Programs written by hand in XLA's notation, small enough for sums on paper."""

import pathlib

# 12 rounds (the counter from 0, by 1) with one product of [256, 512] and [512, 128].
LOOP = pathlib.Path(__file__).with_name("loop.hlo").read_text(encoding="utf-8")


def loop(bound: str = "constant(12)") -> str:
  """`LOOP`, its bound a constant or, as libtpu writes some, carried in the tuple."""
  return LOOP.replace("BOUND", bound)


CARRIED = "get-tuple-element(%c), index=4"


def program(*lines: str, before: str = "") -> str:
  """An entry computation of these lines."""
  body = "\n".join(f"  {line}" for line in lines)
  return f"HloModule m\n\n{before}\nENTRY %main (p: f32[8]) -> f32[8] {{\n{body}\n}}\n"
