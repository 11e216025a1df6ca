"""libsndfile as we trust it: a decoder whose answers are right or an error.

libsndfile 1.2 gives wrong samples for some files and no word about it. Instead:
  a text file named .vox or .gsm decodes     it is shown bytes, never names
  seeks in Ogg and MP3 land elsewhere        `exact_seek` is False, and soundfile's own
                                             seek after every read is switched off
  an MP3 without a length header stops at    it is told that the file is longer, and
    a length guessed from its first frame    decodes until the stream ends
  a header that promises more is lowered     the promise is compared, the file refused
  a later stream of an Ogg file is left out  the file is refused
"""

import io
import re
from typing import IO

import soundfile

# Codecs whose seeks are exact: samples of constant size, and FLAC (PCM_16, PCM_24).
_EXACT_SEEK = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# libsndfile's log, where a chunk of samples says that it is larger than the file.
_PROMISE = re.compile(
  r"(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)"
)
# An MP3's frame count; the lowest bit of Xing's flags says whether it is there.
_MP3_LENGTH = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f]|VBRI")
_UNKNOWN_FRAMES = 1 << 62  # a FLAC of unknown length is given 2**63 - 1 frames
_HEAD_BYTES = 1 << 16
_OGG_TAIL_BYTES = 1 << 17  # two pages of the greatest length


class AudioError(ValueError):
  """Audio that cannot be used; the message names the file."""


class Sound(soundfile.SoundFile):
  """An open decoder.

  Attributes:
    total_frames: what the file declares, None where that is a guess or nothing.
  """

  total_frames: int | None = None

  def seekable(self) -> bool:
    return False  # or soundfile seeks to where it is after every read

  @property
  def exact_seek(self) -> bool:
    constant = self.subtype.startswith(_EXACT_SEEK) and self.format != "OGG"
    return constant and self.total_frames is not None

  @property
  def is_mpeg(self) -> bool:
    return "MPEG" in self.subtype

  @property
  def missing_frames_allowed(self) -> int:
    """One MP3 frame: writers disagree whether the header frame is counted."""
    mp3_frame = 1152 if self.samplerate >= 32_000 else 576
    return mp3_frame if self.is_mpeg else 0


def opened(file: IO[bytes], label: str) -> Sound:
  """A decoder of an open file, chosen by its content.

  Raises:
    AudioError: empty, not audio, truncated as far as headers tell, or chained Ogg.
  """
  head = file.read(_HEAD_BYTES)
  if not head:
    raise AudioError(f"{label}: is empty (0 bytes)")
  sound = _sound(_Nameless(file), head, label)
  _check_promise(sound, label)
  position = file.tell()
  if sound.format == "OGG":
    _check_ogg(file, head, label)
  if sound.is_mpeg and not _declares_length(file, head):
    sound.close()
    return _sound(_Stretched(file), head, label)
  file.seek(position)  # where the decoder believes that it is
  if sound.frames < _UNKNOWN_FRAMES:
    sound.total_frames = sound.frames
  return sound


def _sound(stream: "_Nameless | _Stretched", head: bytes, label: str) -> Sound:
  stream.seek(0)
  try:
    return Sound(stream)
  except soundfile.LibsndfileError as error:
    raise AudioError(
      f"{label}: not audio that libsndfile decodes (WAV, FLAC, Ogg, MP3, …): "
      f"{error.error_string} It begins {head[:16]!r}"
    ) from error


class _Nameless:
  """An open file without its name, which soundfile would believe over the bytes."""

  def __init__(self, file: IO[bytes]):
    self.read, self.seek, self.tell = file.read, file.seek, file.tell


class _Stretched:
  """A file said to be 64 times as long, its end repeated as zeros.

  mpg123 guesses an MP3's length from its first frame (8 to 320 kbit/s) and stops there.
  A guess beyond the end does no harm: decoding ends where the stream does. The content
  is held in memory, for remote files refuse to seek beyond their end.
  """

  def __init__(self, file: IO[bytes]):
    file.seek(0)
    content = file.read()
    self.file, self.content_bytes = io.BytesIO(content), len(content)
    self.tell, self.said_bytes = self.file.tell, 64 * len(content)

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    if whence == io.SEEK_END:
      offset, whence = self.said_bytes + offset, io.SEEK_SET
    return self.file.seek(offset, whence)

  def read(self, size: int) -> bytes:
    position = self.file.tell()
    if position <= self.content_bytes:
      return self.file.read(size)
    size = min(size, self.said_bytes - position)  # mpg123 looks for a tag at the end
    self.file.seek(position + size)
    return bytes(size)


def _declares_length(file: IO[bytes], head: bytes) -> bool:
  """Whether an MP3's first frame holds a frame count (after an ID3v2 tag)."""
  skipped = 0
  if head[:3] == b"ID3":  # ten bytes, the last four a size in 7-bit digits
    skipped = 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
  file.seek(skipped)
  return bool(_MP3_LENGTH.search(file.read(4096)))


def _check_promise(sound: Sound, label: str) -> None:
  for declared, there in _PROMISE.findall(sound.extra_info):
    # Just under 2 or 4 GiB is how writers to a pipe say "unknown".
    piped = int(declared) < 1 << 32 and int(declared) & 0x7FFF0000 == 0x7FFF0000
    if int(declared) > int(there) and not piped:
      raise AudioError(
        f"{label}: truncated, its header declares {declared} bytes of samples, "
        f"{there} are there"
      )


def _check_ogg(file: IO[bytes], head: bytes, label: str) -> None:
  """Refuses a file whose last page is cut or belongs to a later stream."""
  serials, at = set(), 0
  while head[at : at + 4] == b"OggS" and head[at + 5] & 2:  # a stream's first page
    serials.add(head[at + 14 : at + 18])
    at = _page_end(head, at)
  size = file.seek(0, io.SEEK_END)
  file.seek(max(0, size - _OGG_TAIL_BYTES))
  tail = file.read()
  at = tail.rfind(b"OggS")
  if at < 0 or len(tail) < at + 27 or len(tail) < _page_end(tail, at):
    raise AudioError(f"{label}: truncated, its last Ogg page is incomplete")
  if tail[at + 14 : at + 18] not in serials:
    raise AudioError(f"{label}: chained Ogg streams; split them or encode them as one")


def _page_end(data: bytes, at: int) -> int:
  """Where an Ogg page ends: 27 bytes, the segments' sizes, the segments."""
  segments = data[at + 26]
  return at + 27 + segments + sum(data[at + 27 : at + 27 + segments])
