"""Reading every format, span and broken file; chunks; names by content."""

import hashlib
import io as bytes_io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
from etils import epath
from etils.epath import testing as epath_testing

from stepaudio_jax.audio import io
from stepaudio_jax.audio.io import AudioError

# (container, codec, error allowed at 16 kHz): half a step of the codec, or its noise.
LOSSLESS = [
  ("WAV", "PCM_U8", 2**-7),
  ("WAV", "PCM_16", 2**-15),
  ("WAV", "PCM_24", 2**-23),
  ("WAV", "PCM_32", 2**-24),
  ("WAV", "FLOAT", 0),
  ("WAV", "DOUBLE", 0),
  ("WAV", "ULAW", 0.02),
  ("WAVEX", "PCM_16", 2**-15),
  ("RF64", "PCM_16", 2**-15),
  ("W64", "PCM_16", 2**-15),
  ("AIFF", "PCM_16", 2**-15),
  ("AU", "PCM_16", 2**-15),
  ("FLAC", "PCM_16", 2**-15),
  ("FLAC", "PCM_24", 2**-23),
]
LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
FORMATS = [row[:2] for row in LOSSLESS] + LOSSY


def encoded(samples, rate, container, codec=None, **options) -> bytes:
  file = bytes_io.BytesIO()
  soundfile.write(file, samples, rate, format=container, subtype=codec, **options)
  return file.getvalue()


def speechlike(rate, seconds=3.0, channels=1):
  """Notes that change every tenth of a second: every moment differs from the others."""
  time_s = np.arange(round(rate * seconds)) / rate
  rng = np.random.default_rng(1)
  notes_hz = rng.uniform(150, 2000, (channels, int(seconds * 10) + 1))
  phase = 2 * np.pi * np.cumsum(notes_hz[:, (time_s * 10).astype(int)], axis=1) / rate
  return (0.4 * np.sin(phase).T).astype(np.float32).squeeze()


def variable_mp3(rate=16_000, seconds=12.0) -> bytes:
  """Two thirds near-silence, then sound: its bit rate varies a lot."""
  loud = speechlike(rate, seconds)
  loud[: len(loud) * 2 // 3] *= 1e-3
  options = {"bitrate_mode": "VARIABLE", "compression_level": 0.5}
  return encoded(loud, rate, "MP3", "MPEG_LAYER_III", **options)


def without_length_header(mp3: bytes) -> bytes:
  """Drops the first frame, the one that holds the frame count."""
  assert b"Xing" in mp3[:100]
  return mp3[mp3.index(mp3[:2], 4) :]


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize(("container", "codec", "error"), LOSSLESS)
def test_lossless_formats_give_the_samples(container, codec, error):
  samples = speechlike(16_000)
  ours = io.read(encoded(samples, 16_000, container, codec))
  assert ours.dtype == np.float32
  np.testing.assert_allclose(ours, samples, rtol=0, atol=error)


@pytest.mark.parametrize(("container", "codec"), LOSSY)
def test_lossy_formats_give_nearly_the_samples(container, codec):
  samples = speechlike(16_000)
  ours = io.read(encoded(samples, 16_000, container, codec))
  assert len(ours) == len(samples)
  assert np.corrcoef(ours, samples)[0, 1] > 0.98


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_every_rate_becomes_the_same_tone(rate):
  frames = rate * 2 + 37
  tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(frames) / rate)
  ours = io.read(encoded(tone, rate, "WAV", "FLOAT"))
  assert len(ours) == round(frames * 16_000 / rate)
  expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(ours)) / 16_000)
  np.testing.assert_allclose(ours[500:-500], expected[500:-500], rtol=0, atol=1e-4)


def test_channels_become_their_mean():
  left, right, third = np.float32([[0.5, -0.25, 1], [0, 0.75, 1], [0.25, 0.25, -1]])
  stereo = encoded(np.stack([left, right], 1), 16_000, "WAV", "FLOAT")
  np.testing.assert_array_equal(io.read(stereo), np.float32([0.25, 0.25, 1]))
  three = encoded(np.stack([left, right, third], 1), 16_000, "WAV", "FLOAT")
  np.testing.assert_allclose(io.read(three), [0.25, 0.25, 1 / 3], rtol=1e-6)


@pytest.mark.parametrize("written", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("suffix", ["wav", "raw", "flac", "mp3", "txt", "vox"])
def test_the_content_decides_and_not_the_name(tmp_path, written, suffix):
  content = encoded(speechlike(16_000, 0.5), 16_000, written)
  file = tmp_path / f"clip.{suffix}"
  file.write_bytes(content)
  np.testing.assert_array_equal(io.read(file), io.read(content))


def test_an_mp3_inside_riff_is_read():
  mp3 = encoded(speechlike(16_000), 16_000, "MP3")
  head = struct.pack("<HHIIHH", 0x55, 1, 16_000, 4_000, 1, 0)
  head += struct.pack("<HHIHHH", 12, 1, 2, 144, 1, 1393)
  riff = b"WAVEfmt " + struct.pack("<I", len(head)) + head
  riff += b"data" + struct.pack("<I", len(mp3)) + mp3
  wav = b"RIFF" + struct.pack("<I", len(riff)) + riff
  np.testing.assert_array_equal(io.read(wav), io.read(mp3))


def test_silence_and_overload_are_results():
  assert not io.read(encoded(np.zeros(4_000), 16_000, "FLAC")).any()
  loud = np.float32([1.5, -3, 0])
  np.testing.assert_array_equal(io.read(encoded(loud, 16_000, "WAV", "FLOAT")), loud)


def test_paths_of_every_kind_and_twice_are_the_same(tmp_path):
  file = tmp_path / "clip.mp3"
  file.write_bytes(encoded(speechlike(44_100, channels=2), 44_100, "MP3"))
  first = io.read(file)
  for again in [str(file), epath.Path(file), file.read_bytes(), file]:
    np.testing.assert_array_equal(io.read(again), first)
  assert first.flags.writeable


class RemoteFile(bytes_io.BytesIO):
  """Refuses to seek beyond its end, as files in a bucket do."""

  def seek(self, offset, whence=0):
    assert whence == 2 or offset <= len(self.getbuffer())
    return super().seek(offset, whence)


@pytest.mark.parametrize("name", ["clip.flac", "untold.mp3"])
def test_files_in_a_bucket_are_read(name):
  contents = {
    "clip.flac": encoded(speechlike(16_000), 16_000, "FLAC"),
    "untold.mp3": without_length_header(variable_mp3()),
  }

  def opened(original, path, mode):
    assert mode == "rb"
    return RemoteFile(contents[str(path).removeprefix("gs://bucket/")])

  with epath_testing.mock_epath(open=opened):
    samples = io.read(f"gs://bucket/{name}", 1.0, 2.5)
    key = io.content_key(f"gs://bucket/{name}", 1.0, 2.5)
  np.testing.assert_array_equal(samples, io.read(contents[name], 1.0, 2.5))
  assert key == io.content_key(contents[name], 1.0, 2.5)


def test_recordings_are_what_soundfile_reads(shared_audio):
  for recording in ["speech/jfk.flac", "music/fishin.flac", "fsdd/0_george_0.flac"]:
    expected, rate = soundfile.read(shared_audio / recording, dtype="float32")
    assert rate == 16_000
    np.testing.assert_array_equal(io.read(shared_audio / recording), expected)


# ---------------------------------------------------------------- spans and blocks


@pytest.mark.parametrize(("container", "codec"), FORMATS)
def test_a_span_is_a_slice_of_the_whole(container, codec):
  content = encoded(speechlike(16_000), 16_000, container, codec)
  whole = io.read(content)
  for start_s, end_s in [(1.0, 2.5), (0.3, None), (None, 0.01), (2.0, 2.001)]:
    part = slice(round((start_s or 0) * 16_000), end_s and round(end_s * 16_000))
    np.testing.assert_array_equal(io.read(content, start_s, end_s), whole[part])


def test_spans_of_a_variable_mp3_are_slices():
  # Sought, such a file answers from elsewhere.
  content = variable_mp3()
  whole = io.read(content)
  for start_s in [3.0, 7.7, 9.1]:
    part = io.read(content, start_s, start_s + 0.5)
    at = round(start_s * 16_000)
    np.testing.assert_array_equal(part, whole[at : at + 8_000])


def test_a_span_is_cut_before_it_is_resampled():
  samples = speechlike(44_100)
  ours = io.read(encoded(samples, 44_100, "WAV", "FLOAT"), 0.5, 1.75)
  expected = soxr.resample(samples[22_050:77_175], 44_100, 16_000, quality="HQ")
  np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(("container", "codec"), FORMATS)
def test_blocks_leave_no_trace(monkeypatch, container, codec):
  content = encoded(speechlike(48_000, 1.0, channels=2), 48_000, container, codec)
  whole = io.read(content)
  decoded, _ = soundfile.read(bytes_io.BytesIO(content), dtype="float32")
  expected = soxr.resample(decoded.mean(axis=1), 48_000, 16_000, quality="HQ")
  np.testing.assert_array_equal(whole, expected)
  monkeypatch.setattr(io, "BLOCK_FRAMES", 999)
  np.testing.assert_array_equal(io.read(content), whole)
  np.testing.assert_array_equal(
    io.read(content, 0.25, 0.5),
    soxr.resample(decoded[12_000:24_000].mean(axis=1), 48_000, 16_000, quality="HQ"),
  )


def test_a_long_file_costs_little_more_than_its_result():
  minutes = encoded(np.zeros((44_100 * 120, 2), np.int16), 44_100, "WAV", "PCM_U8")
  tracemalloc.start()
  samples = io.read(minutes)
  _, peak_bytes = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  # 120 s: 7.7 MB here, and 42 MB decoded at once.
  assert samples.nbytes == 120 * 16_000 * 4
  assert peak_bytes < 1.5 * samples.nbytes + 3e6


@pytest.mark.parametrize(
  ("start_s", "end_s", "message"),
  [
    (1.0, 1.0, "span 1.0 s to 1.0 s: 0 <= start < end"),
    (2.0, 1.0, "span 2.0 s to 1.0 s: 0 <= start < end"),
    (-0.1, 1.0, "span -0.1 s"),
    (float("nan"), None, "span nan s to its end"),
    (0.0, float("nan"), "span 0.0 s to nan s"),
    (0.0, float("inf"), "span 0.0 s to inf s"),
    (1.0, 1.00001, "span 1.0 s to 1.00001 s is under one sample"),
    (2.0, 3.02, "span 2.0 s to 3.02 s is outside its 3.0 s"),
    (3.0, 3.005, "span 3.0 s to 3.005 s is outside its 3.0 s"),
    (5.0, None, "span 5.0 s to its end is outside its 3.0 s"),
  ],
)
@pytest.mark.parametrize("container", ["WAV", "MP3", "untold FLAC"])
def test_bad_spans_are_named(container, start_s, end_s, message):
  if container == "untold FLAC":
    content = flac_of_unknown_length(speechlike(16_000))
  else:
    content = encoded(speechlike(16_000), 16_000, container)
  with pytest.raises(AudioError, match=f"example 'clip-7' .*bytes.*: {message}"):
    io.read(content, start_s, end_s, name="clip-7")


def test_a_rounded_end_is_forgiven():
  content = encoded(speechlike(16_000), 16_000, "WAV")
  assert len(io.read(content, 2.0, 3.01)) == 16_000


# ---------------------------------------------------------------- lengths told wrongly


def flac_of_unknown_length(samples) -> bytes:
  content = bytearray(encoded(samples, 16_000, "FLAC"))
  told = int.from_bytes(content[18:26])  # the last 36 bits count the samples
  assert told % 2**36 == len(samples)
  content[18:26] = (told >> 36 << 36).to_bytes(8)
  return bytes(content)


def test_a_flac_of_unknown_length_is_read_to_its_end():
  samples = speechlike(16_000)
  content = flac_of_unknown_length(samples)
  np.testing.assert_array_equal(
    io.read(content), io.read(encoded(samples, 16_000, "FLAC"))
  )
  np.testing.assert_array_equal(
    io.read(content, 1.0, 2.0), io.read(content)[16_000:32_000]
  )
  assert len(io.read(content, 2.0)) == 16_000


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("tag", [b"", b"ID3\3\0\0\0\1\0\0" + bytes(1 << 14)])
def test_a_variable_mp3_without_a_length_is_read_to_its_end(rate, tag):
  told = variable_mp3(rate)
  content = tag + without_length_header(told)
  guessed = soundfile.info(bytes_io.BytesIO(without_length_header(told))).frames
  frames = 12 * rate
  assert guessed < frames / 2  # libsndfile alone stops there
  ours, expected = io.read(content), io.read(told)
  # Whole MP3 frames, the encoder's delay and padding among them.
  assert frames <= len(ours) * rate / 16_000 <= frames + 4 * 1152
  # The sound is there, later by the delay that only the header tells.
  delays = range(2_400)
  wanted = expected[150_000:160_000]
  best = max(np.dot(ours[150_000 + d : 160_000 + d], wanted) for d in delays)
  assert best > 0.9 * np.dot(wanted, wanted)
  at_s = 140_000 / 16_000
  if rate == 16_000:
    part = io.read(content, at_s, at_s + 1)
    np.testing.assert_array_equal(part, ours[140_000:156_000])


def test_a_tag_before_an_mp3_with_a_length_changes_nothing():
  told = variable_mp3()
  tag = b"ID3\3\0\0\0\6\0\0" + bytes(6 << 14)
  np.testing.assert_array_equal(io.read(tag + told), io.read(told))
  with pytest.raises(AudioError, match="truncated"):
    io.read(tag + told[: len(told) * 3 // 4])


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_an_mp3_may_count_its_header_frame_and_tell_no_delay(rate):
  told = bytearray(variable_mp3(rate))
  delays = told.index(b"LAME")
  told[delays : delays + 36] = bytes(36)
  at = told.index(b"Xing") + 8
  frames = int.from_bytes(told[at : at + 4])
  told[at : at + 4] = (frames + 1).to_bytes(4)
  assert len(io.read(bytes(told))) >= 12 * 16_000
  told[at : at + 4] = (frames + 2).to_bytes(4)
  with pytest.raises(AudioError, match="truncated"):
    io.read(bytes(told))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_is_whole(size):
  content = encoded(speechlike(16_000), 16_000, "WAV")
  at = content.index(b"data") + 4
  piped = content[:at] + struct.pack("<I", size) + content[at + 4 :]
  np.testing.assert_array_equal(io.read(piped), io.read(content))


@pytest.mark.parametrize("kept", [0.5, 0.99])
@pytest.mark.parametrize(("container", "codec"), FORMATS)
def test_truncated_files_are_refused(container, codec, kept):
  # Long enough that a hundredth is more than an MP3 frame.
  content = encoded(speechlike(16_000, 10.0), 16_000, container, codec)
  with pytest.raises(AudioError, match=r"'clip-7' .*(truncated|broken after)"):
    io.read(content[: int(len(content) * kept)], name="clip-7")


def test_truncation_names_both_counts():
  wav = encoded(np.zeros(1_000), 16_000, "WAV")
  with pytest.raises(AudioError, match="declares 2000 bytes of samples, 1500 are"):
    io.read(wav[:-500])
  told = variable_mp3()
  with pytest.raises(AudioError, match=r"declares 192000 frames and decodes to \d+"):
    io.read(told[: len(told) // 2])
  flac = encoded(speechlike(16_000, 30.0), 16_000, "FLAC")
  with pytest.raises(AudioError, match=r"broken after 131072 of 480000 frames"):
    io.read(flac[: len(flac) // 3])


def test_chained_ogg_streams_are_refused():
  one, other = (encoded(speechlike(16_000, s), 16_000, "OGG") for s in (1.0, 2.0))
  assert soundfile.info(bytes_io.BytesIO(one + other)).frames == 16_000  # no word of it
  with pytest.raises(AudioError, match="chained Ogg"):
    io.read(one + other)


# ---------------------------------------------------------------- not audio


@pytest.mark.parametrize("name", ["a.wav", "a.vox", "a.au", "a.gsm", "a.raw", "a.mp3"])
def test_text_is_not_audio(tmp_path, name):
  file = tmp_path / name
  file.write_text("version https://git-lfs.github.com/spec/v1\n" * 500)
  with pytest.raises(AudioError, match=rf"{name}: not audio .*b'version https"):
    io.read(file)


def test_missing_folder_and_empty_files_are_named(tmp_path):
  with pytest.raises(
    AudioError, match=r"example 'clip-7' \(.*gone.wav\): No such file"
  ):
    io.read(tmp_path / "gone.wav", name="clip-7")
  with pytest.raises(AudioError, match=r"gone.wav: No such file"):
    io.content_key(tmp_path / "gone.wav")
  with pytest.raises(AudioError, match="directory"):
    io.read(tmp_path)
  with pytest.raises(AudioError, match=r"empty \(0 bytes\)"):
    io.read(b"")


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_a_file_without_samples_is_refused(container):
  with pytest.raises(AudioError, match=r"holds no samples|is empty"):
    io.read(encoded(np.zeros(0), 16_000, container))
  one_frame = encoded(np.zeros(1), 48_000, container)  # a third of a sample
  with pytest.raises(AudioError, match="holds no samples"):
    io.read(one_frame)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(bad):
  samples = np.zeros((70_000, 2), np.float32)
  samples[66_000, 1] = bad
  content = encoded(samples, 44_100, "WAV", "FLOAT")
  with pytest.raises(AudioError, match=r"NaN or infinite samples, .* frame 66000"):
    io.read(content)
  assert len(io.read(content, end_s=1.0)) == 16_000  # the span before it is sound


# ---------------------------------------------------------------- chunks


@pytest.mark.parametrize(
  ("samples", "sizes", "dropped"),
  [
    (321, [321], 0),
    (400_000, [400_000], 0),
    (400_001, [400_000], 1),
    (400_320, [400_000], 320),
    (400_321, [400_000, 321], 0),
    (800_000, [400_000, 400_000], 0),
    (1_000_000, [400_000, 400_000, 200_000], 0),
  ],
)
def test_chunks(samples, sizes, dropped):
  clip = np.arange(samples, dtype=np.float32)
  cut = io.chunks(clip)
  assert [len(piece) for piece in cut.pieces] == sizes
  assert cut.dropped_samples == dropped
  assert all(np.shares_memory(piece, clip) for piece in cut.pieces)
  np.testing.assert_array_equal(np.concatenate(cut.pieces), clip[: samples - dropped])


@pytest.mark.parametrize("samples", [0, 1, 320])
def test_a_clip_too_short_for_a_token_is_named(samples):
  with pytest.raises(
    AudioError, match=rf"clip-7: .*\({samples} samples.* give no .* 321"
  ):
    io.chunks(np.zeros(samples, np.float32), name="clip-7")


def test_a_short_clip_is_told_in_time_which_no_resampling_changes():
  with pytest.raises(AudioError, match=r"a clip: 12\.5 ms of sound \(200 samples at"):
    io.chunks(np.zeros(200, np.float32))  # 200 / 16 000 s


# ---------------------------------------------------------------- content_key


def test_content_key_is_a_hash_of_bytes_and_span(tmp_path):
  content = b"no audio is needed" * 100_000  # more than a block
  file = tmp_path / "clip"
  file.write_bytes(content)
  expected = hashlib.blake2b(content + b"|0.0|None", digest_size=16).hexdigest()
  same = [
    io.content_key(content),
    io.content_key(file),
    io.content_key(str(file), 0),
    io.content_key(file, 0.0, None, name="clip-7"),
  ]
  assert same == [expected] * 4
  other = [
    io.content_key(content + b"."),
    io.content_key(content, 1),
    io.content_key(content, 1, 2),
    io.content_key(content, None, 2),
    io.content_key(content, 1.5, 2),
  ]
  assert len({expected, *other}) == 6
  assert io.content_key(content, 1, 2) == io.content_key(content, np.float64(1), 2.0)
  with pytest.raises(AudioError, match="0 <= start < end"):
    io.content_key(content, 2, 1)


def test_audio_error_is_a_value_error():
  assert issubclass(AudioError, ValueError)
