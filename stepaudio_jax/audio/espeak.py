"""espeak-ng through ctypes: text to 16-bit samples, inside this process.

Everything a process says changes what it says next (pitch flutter, gain control and
breath noise go on, and nothing resets them), so only a fresh process that says the
same things in the same order gives the same samples; `speech` builds on that. The
library's state is global: one `Espeak` a process.
"""

import ctypes
import functools
import pathlib

import espeakng_loader
import numpy as np

SAMPLE_RATE = 22_050  # Hz, of every espeak-ng voice

# The numbers below are speak_lib.h's (espeak-ng 1.52).
_SYNCHRONOUS = 2  # samples go to the callback before espeak_Synth returns; mode 1
# (AUDIO_OUTPUT_RETRIEVAL) answers from a thread of its own
_DONT_EXIT = 0x8000  # return an error code rather than end the process
_UTF8 = 1  # espeakCHARS_UTF8, and no SSML: "<" is spoken, not parsed
_CHARACTER = 1  # POS_CHARACTER
_PARAMETERS = (1, 2, 3, 4)  # espeakRATE, VOLUME, PITCH, RANGE
_CALLBACK = ctypes.CFUNCTYPE(
  ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@functools.cache
def languages() -> tuple[str, ...]:
  """The voices before the plus sign, such as "en-us"."""
  folder = pathlib.Path(espeakng_loader.get_data_path()) / "lang"
  return tuple(sorted(f.name.lower() for f in folder.rglob("*") if f.is_file()))


@functools.cache
def variants() -> tuple[str, ...]:
  """The speakers after the plus sign, such as "f3".

  Far apart in measured timbre and F0 (median Hz): f1 179, f3 211, Annie 242, belinda
  228, Alicia 245, steph 184; m1 94, m7 106, m8 85, Lee 95, Gene 94, david 74. m2 to
  m6 are near the plain voice. whisper, whisperf and croak give pyin no F0. Loudness
  differs too: RMS at one volume from m8 ×0.7 to Gene ×1.6 of the plain voice's.
  """
  folder = pathlib.Path(espeakng_loader.get_data_path()) / "voices" / "!v"
  return tuple(sorted(f.name for f in folder.iterdir()))


def check_voice(voice: str) -> None:
  """Raises ValueError unless voice is LANGUAGE or LANGUAGE+VARIANT.

  espeak-ng itself takes an unknown variant silently and speaks without it.
  """
  language, plus, variant = voice.partition("+")
  if language not in languages():
    near = [name for name in languages() if name[:2] == "en"]
    raise ValueError(
      f"unknown language {language!r} in voice {voice!r}; English ones are "
      f"{', '.join(near)} ({len(languages())} languages in all)"
    )
  if plus and variant not in variants():
    raise ValueError(
      f"unknown variant {variant!r} in voice {voice!r}; there are "
      f"{', '.join(variants())}"
    )


class Espeak:
  """The library, opened for this process."""

  def __init__(self):
    self._library = ctypes.CDLL(espeakng_loader.get_library_path())
    self._library.espeak_Synth.argtypes = [
      ctypes.c_char_p,
      ctypes.c_size_t,
      ctypes.c_uint,
      ctypes.c_int,
      ctypes.c_uint,
      ctypes.c_uint,
      ctypes.c_void_p,
      ctypes.c_void_p,
    ]
    data = espeakng_loader.get_data_path().encode()
    rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT)
    if rate != SAMPLE_RATE:
      raise RuntimeError(f"espeak_Initialize gave {rate}, expected {SAMPLE_RATE} Hz")
    # Breathy voices draw noise from a generator that Initialize seeds by the clock.
    self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    self._pieces: list[bytes] = []
    self._callback = _CALLBACK(self._collect)  # kept, or ctypes frees it
    self._library.espeak_SetSynthCallback(self._callback)

  def _collect(self, wave, count, events) -> int:
    if wave and count > 0:
      self._pieces.append(ctypes.string_at(wave, 2 * count))
    return 0

  def say(
    self,
    text: str,
    voice: str,
    *,
    rate: int,
    volume: int,
    pitch: int,
    pitch_range: int,
  ) -> np.ndarray:
    """int16 samples at 22,050 Hz, with espeak's silence at both ends.

    Args:
      text: plain text; markup is spoken.
      voice: see `check_voice`.
      rate: words a minute, 80 to 450.
      volume: percent of espeak's own amplitude, 0 (silent) to 200.
      pitch: 0 to 99; 50 is the voice's own.
      pitch_range: 0 to 99; 50 is the voice's own, 0 a monotone.
    """
    check_voice(voice)
    self._expect_ok(self._library.espeak_SetVoiceByName(voice.encode()), voice)
    for parameter, value in zip(
      _PARAMETERS, (rate, volume, pitch, pitch_range), strict=True
    ):
      status = self._library.espeak_SetParameter(parameter, value, 0)
      self._expect_ok(status, f"parameter {parameter}={value}")
    self._pieces.clear()
    data = text.encode()
    status = self._library.espeak_Synth(
      data, len(data) + 1, 0, _CHARACTER, 0, _UTF8, None, None
    )
    self._expect_ok(status, repr(text))
    return np.frombuffer(b"".join(self._pieces), np.int16)

  def _expect_ok(self, status: int, what: str) -> None:
    if status:
      raise RuntimeError(f"espeak-ng refused {what} (error {status})")
