"""Charts, numbers, data and sounds of pages."""

import base64
import html.parser
import io
import json

import jinja2
import numpy as np
import pytest
import soundfile

from stepaudio_jax.pages import charts, sounds, templates, words
from stepaudio_jax.pages.charts import Point
from tests.report.folders import tone

NASTY = {"a": "</script><img src=x onerror=alert(1)>", "<!--": "<script>&amp;\u2028"}


class Scripts(html.parser.HTMLParser):
  def __init__(self, text):
    super().__init__()
    self.tags, self.words = [], []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)

  def handle_data(self, data):
    self.words.append(data)


def test_data_ends_no_script_and_is_the_same_json():
  text = str(templates.data(NASTY))
  page = Scripts(f"<script>{text}</script><p>after</p>")
  assert page.tags == ["script", "p"]
  assert json.loads(page.words[0]) == NASTY
  assert "\u2028" not in text
  with pytest.raises(ValueError, match="not JSON compliant"):
    templates.data(float("nan"))


def test_templates_escape_and_know_their_names(tmp_path):
  (tmp_path / "x.html").write_text("<p>{{ name }} {{ 0.5 | percent }}</p>")
  page = templates.render(tmp_path, "x.html", name=NASTY["a"])
  assert page.startswith("<p>&lt;/script&gt;&lt;img")
  assert page.endswith(" 50.0</p>\n")
  with pytest.raises(jinja2.UndefinedError, match="'name' is undefined"):
    templates.render(tmp_path, "x.html")


def test_numbers_as_they_are_written():
  part = {"mean": -0.0214, "low": -0.1, "high": 0.0004}
  assert words.interval({"mean": 0.5, "low": 0.25, "high": 1}) == "50.0 [25.0, 100.0]"
  assert words.gap(part) == "−2.1 [−10.0, 0.0]"
  assert [words.sign(part | {"high": v}) for v in (-0.01, 0.0)] == ["down", "unclear"]
  assert words.sign({"low": 0.01, "high": 0.2}) == "up"
  assert [words.chance(p) for p in (0.0314, 0.0009)] == ["0.031", "<\u00a00.001"]
  assert words.number(-0.126, 2) == "−0.13"
  assert (words.tick(-0.025), words.tick(0.2)) == ("−2.5", "20")
  for one in (words.percent, words.ends, words.interval, words.gap, words.chance):
    assert one(None) == "–"


def test_short_axes_are_linear_and_long_ones_count_doublings():
  axis = charts.lengths([1, 2, 4])
  assert not axis.logarithmic
  assert axis.place(2) == pytest.approx(100 * (2 - axis.low) / (axis.high - axis.low))
  axis = charts.lengths([64, 4096])
  assert axis.ticks == (64, 128, 256, 512, 1024, 2048, 4096)
  assert axis.place(512) == pytest.approx(50)  # 64 · 8 · 8 = 4096
  assert not charts.lengths([0, 4096]).logarithmic
  assert charts.linear([0.0, -0.07, 0.31]).ticks[0] <= -0.07


def test_counts_are_marked_where_they_are():
  assert charts.counts([4, 1, 2, 1]).marks == [(0, 1), (50, 2), (100, 4)]
  assert charts.counts([1, 1]).marks == [(0, 1)]


def test_points_apart_are_on_no_line():
  free = Point(48, 0.75, 0.5, 1.0, apart=True)
  line = [Point(96, 0.5, 0.4, 0.6), free, Point(32, 0.25, 0.1, 0.4)]
  one = charts.panel("p", {"a": line})["lines"]["a"]
  assert [dot["y"] for dot in one["dots"]] == [75, 25, 50]
  assert one["dots"][1]["ends"] == [50, 0]
  ((first, last),) = one["strokes"]
  assert (first["point"]["x"], last["point"]["x"]) == (32, 96)


def test_another_scale_goes_from_its_first_tick_to_its_last():
  line = [Point(turn, 2, 1, 5) for turn in (1, 8)]
  one = charts.panel("p", {"a": line}, charts.linear, (1, 2, 3, 4, 5), str)
  dot = one["lines"]["a"]["dots"][0]
  assert (dot["y"], dot["ends"], dot["label"]) == (75, [100, 0], "2")
  assert one["heights"][0] == (100, 1)
  assert one["lines"]["a"]["dots"][1]["x"] == 100  # 0, 2, …, 8


def _block(folder, name="a.wav", seconds=1.0, rate=44_100, **given):
  soundfile.write(folder / name, tone(440, seconds, rate), rate)
  return {"type": "audio", "path": name} | given


def _heard(held, place):
  assert held.clips[place]["mime"] == "audio/mpeg"
  file = io.BytesIO(base64.b64decode(held.contents[place], validate=True))
  return soundfile.read(file)


def test_a_clip_is_small_and_sounds_the_same(tmp_path):
  held = sounds.Sounds(tmp_path, 10**6)
  place = held.add(_block(tmp_path, seconds=4.0, start_s=1.0, end_s=3.0))
  sound_N, rate = _heard(held, place)
  assert (rate, held.clips[place]["seconds"]) == (16_000, 2.0)
  assert len(sound_N) / rate == pytest.approx(2.0, abs=0.15)  # MP3 pads its ends
  middle_N = sound_N[8000:24_000]
  loudest = np.argmax(np.abs(np.fft.rfft(middle_N)))  # in Hz: one second
  assert loudest == pytest.approx(440, abs=2)
  assert len(held.contents[place]) < 2 * 64_000  # of raw samples


def test_a_clip_is_held_once_for_each_span(tmp_path):
  held = sounds.Sounds(tmp_path, 10**6)
  block = _block(tmp_path, seconds=2.0)
  raw = (tmp_path / "a.wav").read_bytes()
  places = [held.add(block), held.add(block | {"end_s": 1.0}), held.add(dict(block))]
  text = base64.b64encode(raw).decode()
  in_row = {"type": "audio", "bytes": text}
  beside = {"type": "audio", "sha256": "0", "bytes_file": "a.wav"}
  places += [held.add(in_row), held.add(beside)]
  assert places == [0, 1, 0, 2, 0]
  assert held.clips[2]["source"] == f"{len(raw)} bytes"
  assert held.absent() == {}


def test_clips_of_a_folder_that_was_moved_are_found_in_it(tmp_path):
  for name in ("before/clips", "after/clips"):
    (tmp_path / name).mkdir(parents=True)
  before = tmp_path / "before" / "clips"
  block = _block(before, seconds=1.0) | {"path": str(before / "a.wav")}
  _block(tmp_path / "after" / "clips", seconds=2.0)
  held = sounds.Sounds(tmp_path / "after", 10**6)
  assert held.clips[held.add(block)]["seconds"] == 1.0  # it is still there
  (before / "a.wav").unlink()
  held = sounds.Sounds(tmp_path / "after", 10**6)
  assert held.clips[held.add(block)]["seconds"] == 2.0


def test_what_cannot_be_played_is_named_and_counted(tmp_path):
  block = _block(tmp_path)
  (tmp_path / "b.wav").write_bytes(b"no sound")
  size = len(base64.b64encode(sounds.encoded(tone(440, 1.0, 16_000))[1]))
  held = sounds.Sounds(tmp_path, int(1.5 * size))
  held.add(block)
  held.add(block | {"end_s": 0.9})
  for name in ("b.wav", "none.wav"):
    held.add({"type": "audio", "path": name})
  held.add({"type": "audio"})
  assert held.absent() == {"left out": 1, "could not be read": 3}
  why = [clip["absent"] for clip in held.clips]
  assert why[0] is None
  assert "the page holds enough" in why[1]
  assert "b.wav: not audio" in why[2]
  assert "none.wav: No such file" in why[3]
  assert "names no file" in why[4]
  assert [bool(text) for text in held.contents] == [True] + [False] * 4


def test_without_an_mp3_encoder_it_is_flac(monkeypatch):
  monkeypatch.setattr(sounds.soundfile, "available_formats", dict)
  mime, content = sounds.encoded(tone(440, 0.5, 16_000))
  assert mime == "audio/flac"
  assert content.startswith(b"fLaC")
