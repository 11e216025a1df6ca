"""The reward "preference": which of two replies is better, says a judge.

Prompts without a rubric are compared; with `prompts="all"` those with one too, and the
judge reads it (c of R1.5 eq. 2).

"reference": each reply beside one to the same prompt that does not change (R1.5 eq. 2),
in both orders, r = ½(φ(A, B) − φ(B, A)): what two prompts or two steps earn can be
compared. "group": the replies to a prompt beside each other, in a balanced circulant
(judges/circulant.py); their mean is 0 in every group, so this says which replies of a
step are better, not whether replies become better.

Where dialogues are played (sampling.turns) each sample's history is its own, and so is
the reference reply to it: one greedy sample more for every turn but the last.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from stepaudio_jax.judges import circulant
from stepaudio_jax.judges.comparing import Comparer, Pair
from stepaudio_jax.rollout import rubric
from stepaudio_jax.rollout.said import Said

NAME = "preference"  # of its column among the rewards
MODES = ("none", "reference", "group")
PHIS = ("linear", "expected", "calibrated")
FITS = ("least_squares", "bradley_terry")
PROMPTS = ("plain", "all")
OFFSETS = 4

Row = Mapping[str, Any]
# Rows → to each the answer that replies are compared with; None where there is none.
References = Callable[[Sequence[Row]], Sequence[str | None]]


@dataclasses.dataclass(frozen=True)
class Settings:
  """`c.rewards.preference`: which prompts are compared, and how.

  Attributes:
    mode: one of MODES; "none" compares nothing.
    weight: of the reward "preference"; 0 only logs it.
    prompts: "plain" are those without a rubric, or "all".
    phi: one of PHIS, what the levels are worth (core/levels.py).
    calibration: file of "calibrated" (judges/worth.py).
    offsets, fit: of "group", see judges/circulant.py.
  """

  mode: str = MODES[0]
  weight: float = 0.0
  prompts: str = PROMPTS[0]
  phi: str = PHIS[0]
  calibration: str = ""
  offsets: int = OFFSETS
  fit: str = FITS[0]

  def __post_init__(self):
    kinds = {"mode": MODES, "prompts": PROMPTS, "phi": PHIS, "fit": FITS}
    for name, choices in kinds.items():
      if getattr(self, name) not in choices:
        given = f"rewards.preference.{name}={getattr(self, name)!r}"
        raise ValueError(f"{given}; the choices are {choices}")
    blank = {field.name: field.default for field in dataclasses.fields(self)}
    idle = [] if self.on else ["weight", "prompts", "phi"]
    idle += [] if self.mode == "group" else ["offsets", "fit"]
    idle = [name for name in idle if getattr(self, name) != blank[name]]
    if idle:
      told = ", ".join(f"rewards.preference.{n}={getattr(self, n)!r}" for n in idle)
      raise ValueError(f"{told} would do nothing with mode={self.mode!r}")
    if bool(self.calibration) != (self.phi == "calibrated"):
      raise ValueError(
        f"rewards.preference.calibration={self.calibration!r} with phi={self.phi!r}: "
        "'calibrated' needs that file, and nothing else reads it"
      )
    if self.offsets < 1:
      raise ValueError(f"rewards.preference.offsets={self.offsets}: at least 1")

  @property
  def on(self) -> bool:
    return self.mode != "none"


def checked(
  settings: Settings, *, judge: str, samples: int, heldout: int, turns: int
) -> Settings:
  """The settings, if a run of this kind can do what they say.

  Args:
    judge: `c.judge`, "" for nobody.
    samples: replies to a prompt.
    heldout: replies to a held-out prompt.
    turns: of a dialogue that are played.

  Raises:
    ValueError: there is no judge, or no group to compare.
  """
  if settings.on and not judge:
    raise ValueError(f"rewards.preference.mode={settings.mode!r} needs a judge")
  if settings.mode == "group" and turns > 1:
    raise ValueError(
      f"rewards.preference.mode='group' with sampling.turns={turns}: later turns of "
      "two samples answer different things; 'reference' can be"
    )
  if settings.mode == "group" and heldout < 2:
    raise ValueError(
      f"rewards.preference.mode='group' with heldout.samples={heldout}: a reply alone "
      "has nothing to be compared with"
    )
  if settings.mode == "group" and settings.offsets > samples // 2:
    raise ValueError(
      f"rewards.preference.offsets={settings.offsets} with sampling.samples={samples}: "
      f"at most {samples // 2}"
    )
  return settings


class Reader:
  """Rewards of replies by comparisons; NaN where none is known, which is logged.

  Args:
    references: see References; only "reference" asks for them.
  """

  def __init__(self, comparer: Comparer, settings: Settings, references: References):
    self._comparer, self._settings = comparer, settings
    self._references = references
    self._without = 0

  def __call__(
    self, rows: Sequence[Row], texts: Sequence[Said], copies: int
  ) -> np.ndarray:
    """float32 [B] of replies to rows that are compared.

    Args:
      rows: one for each reply.
      copies: replies to a prompt, which come behind each other.
    """
    by_mode = {"reference": self._anchored, "group": self._grouped}
    reward_B = by_mode[self._settings.mode](rows, texts, copies)
    return reward_B.astype(np.float32)

  def counts(self) -> dict[str, float]:
    """To be logged: what was asked since this was asked last.

    Calls, share of judgements without a level, share of pairs on whose winner the two
    orders do not agree, and replies that there was nothing to compare with.
    """
    found = self._comparer.taken().shares() | {"without": float(self._without)}
    self._without = 0
    return {f"reward/{NAME}/{name}": value for name, value in found.items()}

  def _anchored(
    self, rows: Sequence[Row], texts: Sequence[Said], copies: int
  ) -> np.ndarray:
    del copies
    found = self._references(rows)
    reward_B = np.full(len(rows), np.nan)
    places = [
      b
      for b, text in enumerate(texts)
      if text.answer is not None and found[b] is not None
    ]
    self._tell(sum(one is None for one in found), len(rows))
    pairs = [_pair(rows[b], texts[b].answer, found[b]) for b in places]
    reward_B[places] = [both.value for both in self._comparer.both(pairs)]
    return reward_B

  def _grouped(
    self, rows: Sequence[Row], texts: Sequence[Said], copies: int
  ) -> np.ndarray:
    reward_B = np.full(len(rows), np.nan)
    designs, pairs = [], []
    for start in range(0, len(rows), copies):
      # Those whose thought never closed are no part of the group.
      members = [b for b in range(start, start + copies) if texts[b].answer is not None]
      if len(members) < 2:
        continue
      offsets = min(self._settings.offsets, len(members) // 2)
      edges = circulant.edges(len(members), offsets)
      designs.append((members, edges))
      pairs += [
        _pair(rows[start], *(texts[members[k]].answer for k in edge)) for edge in edges
      ]
    value_E = np.asarray([one.value for one in self._comparer.verdicts(pairs)])
    for members, edges in designs:
      own_E, value_E = value_E[: len(edges)], value_E[len(edges) :]
      reward_B[members] = self._fit(len(members), edges, own_E).score_N
    return reward_B

  def _fit(self, count: int, edges: np.ndarray, phi_E: np.ndarray) -> circulant.Fit:
    if self._settings.fit == "least_squares":
      return circulant.least_squares(count, edges, phi_E)
    # φ is log-odds where it is calibrated, and else twice a share, less one.
    calibrated = self._settings.phi == "calibrated"
    win_E = 1 / (1 + np.exp(-phi_E)) if calibrated else (1 + phi_E) / 2
    return circulant.bradley_terry(count, edges, win_E)

  def _tell(self, without: int, asked: int) -> None:
    if without:
      self._without += without
      logging.warning(
        "%d of %d replies have nothing to be compared with", without, asked
      )


@dataclasses.dataclass(frozen=True)
class Terms:
  """How compared prompts are rewarded; without a reader not at all.

  Attributes:
    everywhere: prompts with a rubric too.
  """

  read: Reader | None = None
  weight: float = 0.0
  everywhere: bool = False


def column(
  terms: Terms, rows: Sequence[Row], texts: Sequence[Said], copies: int
) -> tuple[np.ndarray, np.ndarray]:
  """(rewards [B], weights [B]) of "preference"; NaN and 0 where nothing is compared.

  Args:
    copies: replies to a prompt, which come behind each other.
  """
  places = [b for b, row in enumerate(rows) if terms.everywhere or not rubric.has(row)]
  reward_B = np.full(len(rows), np.nan, np.float32)
  weight_B = np.zeros(len(rows), np.float32)
  if places:
    some = [rows[b] for b in places], [texts[b] for b in places]
    reward_B[places] = terms.read(*some, copies)
    weight_B[places] = terms.weight
  return reward_B, weight_B


def _pair(row: Row, first: str, second: str) -> Pair:
  return Pair(row["messages"], first, second, row.get("rubric") or ())
