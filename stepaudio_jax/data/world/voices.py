"""Voices and prosody: which espeak settings make a label audible.

Pitch labels are absolute: bands of the median fundamental frequency (F0). No band
is reached by one voice only, and most voices reach two or three, so the voice's
timbre does not give the label away.
"""

import numpy as np

from stepaudio_jax.audio.speech import Utterance

# Median F0 in Hz of each voice at espeak pitch 0, 20, 40, 60, 80, 99 (yin, measured).
_PITCH_STEPS = (0, 20, 40, 60, 80, 99)
_F0_HZ = {
  "en-us": (73, 77, 91, 110, 137, 169),
  "en-us+m3": (71, 82, 96, 114, 140, 172),
  "en-us+f1": (112, 134, 158, 196, 246, 303),
  "en-us+f4": (112, 131, 160, 197, 245, 307),
  "en-us+steph": (106, 129, 164, 207, 265, 335),
  "en-us+f2": (127, 148, 177, 214, 261, 322),
  "en-us+f5": (129, 152, 182, 224, 280, 350),
}
VOICES = tuple(_F0_HZ)
DEEP_VOICES = ("en-us", "en-us+m3")
BRIGHT_VOICES = tuple(voice for voice in VOICES if voice not in DEEP_VOICES)

PITCH_BAND_HZ = {"low": (82, 116), "middle": (150, 168), "high": (235, 290)}
# Even ratios (×1.4); fast still leaves the 25 Hz frames about one for each letter.
RATE_BAND_WPM = {"slow": (112, 119), "normal": (150, 164), "fast": (210, 230)}
PAIR_RATE_WPM = (170, 184)
NEUTRAL_RANGE = (35, 55)
NEUTRAL_VOLUME = (85, 115)

# style: espeak settings (rate in words/min, pitch, pitch range, volume), low and high
STYLES = {
  "calm": {
    "rate": (138, 150),
    "pitch": (35, 45),
    "range": (25, 35),
    "volume": (55, 65),
  },
  "excited": {
    "rate": (212, 232),
    "pitch": (82, 94),
    "range": (90, 99),
    "volume": (105, 125),
  },
  "sad": {"rate": (112, 122), "pitch": (8, 18), "range": (2, 10), "volume": (30, 38)},
  "angry": {
    "rate": (188, 206),
    "pitch": (35, 45),
    "range": (60, 75),
    "volume": (160, 180),
  },
}


def reach_hz(voice: str) -> tuple[int, int]:
  """Lowest and highest median F0 of a voice."""
  return _F0_HZ[voice][0], _F0_HZ[voice][-1]


def pitch_setting(voice: str, f0_hz: float) -> int:
  """The espeak pitch (0–99) at which `voice` has this median F0."""
  lowest, highest = reach_hz(voice)
  if not lowest <= f0_hz <= highest:
    raise ValueError(f"{voice} reaches {lowest}–{highest} Hz, not {f0_hz:.0f} Hz")
  return round(float(np.interp(np.log(f0_hz), np.log(_F0_HZ[voice]), _PITCH_STEPS)))


def voices_reaching(level: str) -> tuple[str, ...]:
  """Voices that can speak within a pitch band."""
  low, high = PITCH_BAND_HZ[level]
  return tuple(v for v in VOICES if _overlap(reach_hz(v), (low, high)) is not None)


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int] | None:
  low, high = max(a[0], b[0]), min(a[1], b[1])
  return (low, high) if high >= low else None


def f0_in_band(voice: str, level: str, rng: np.random.Generator) -> float:
  """A median F0 of `voice` within the pitch band, in Hz."""
  reached = _overlap(reach_hz(voice), PITCH_BAND_HZ[level])
  if reached is None:
    raise ValueError(f"{voice} has no {level} pitch; try {voices_reaching(level)}")
  return float(rng.uniform(*reached))


def whole(rng: np.random.Generator, band: tuple[int, int]) -> int:
  """A whole number of the band, both ends included."""
  return int(rng.integers(band[0], band[1] + 1))


def neutral(
  text: str, voice: str, f0_hz: float, rate: int, rng: np.random.Generator
) -> Utterance:
  """An utterance without emotion."""
  return Utterance(
    text=text,
    voice=voice,
    pitch=pitch_setting(voice, f0_hz),
    rate=rate,
    volume=whole(rng, NEUTRAL_VOLUME),
    pitch_range=whole(rng, NEUTRAL_RANGE),
  )


def styled(text: str, voice: str, style: str, rng: np.random.Generator) -> Utterance:
  """An utterance in one of STYLES."""
  band = STYLES[style]
  return Utterance(
    text=text,
    voice=voice,
    pitch=whole(rng, band["pitch"]),
    rate=whole(rng, band["rate"]),
    volume=whole(rng, band["volume"]),
    pitch_range=whole(rng, band["range"]),
  )
