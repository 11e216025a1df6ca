"""The report of a made-up quick start, read back with an HTML parser."""

import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
import soundfile

from experiments import report
from tests.experiments.quickstarts import SCRIPT, TASKS, clip, items, make, world

VOID = {"meta", "link", "rect", "line", "circle"}
BLOCKS = {"td", "th", "p", "div"}  # on a line or in a cell of their own


class Page(html.parser.HTMLParser):
  """Every start tag with its attributes, and the text, whole and by article."""

  def __init__(self, text):
    super().__init__()
    self.source, self.tags, self.open = text, [], []
    self.words, self.articles, self.sounds = [], [], []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append(tag)
    if tag == "article":
      self.articles.append([])
      self.sounds.append([])
    if tag == "audio":
      self.sounds[-1].append(dict(attrs))
    if tag in BLOCKS:
      self.handle_data(" ")

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if "style" not in self.open:
      self.words.append(data)
      if "article" in self.open:
        self.articles[-1].append(data)

  @property
  def text(self):
    return plain(self.words)

  def article(self, index):
    return plain(self.articles[index])

  def of(self, tag, **attributes):
    keys = attributes.items()
    return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in keys)]


def plain(words):
  return " ".join("".join(words).split())  # no-break spaces become spaces


def read(path):
  return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return make(tmp_path_factory.mktemp("quickstart") / "it's here", hearing=TASKS[:2])


@pytest.fixture(scope="module")
def page(workdir):
  path = report.write(workdir)
  assert str(path) == str(workdir / "report.html")
  return read(path)


def test_page_needs_nothing_else(page):
  assert page.open == []  # every tag was closed
  assert page.source.startswith("<!doctype html>")
  for _, attributes in page.tags:
    for key in ("src", "href", "srcset", "poster", "data", "action"):
      value = attributes.get(key) or "#"
      assert value.startswith(("#", "data:")), (key, value[:60])
  assert not re.search(r"(https?:)?//[a-z]|url\(|@import", without_data(page.source))
  assert "default-src 'none'" in page.of("meta")[1]["content"]
  assert len(page.source) < 3_000_000


def without_data(source):
  return re.sub(r"data:audio/wav;base64,[A-Za-z0-9+/=]*", "", source)


def test_text_of_the_data_is_escaped(page):
  assert not page.of("script")
  assert SCRIPT in page.text
  assert "Two & <b>loud</b>." in page.text
  assert "Hear <i>" in page.text
  assert "killed & resumed" in page.text


def test_three_dialogues_play(page):
  assert [len(sounds) for sounds in page.sounds] == [2, 1, 1]
  expected = (clip(440), clip(880), clip(440), clip(440))
  sounds = [sound for sounds in page.sounds for sound in sounds]
  for attributes, samples_N in zip(sounds, expected, strict=True):
    assert "controls" in attributes
    head, data = attributes["src"].split(",")
    assert head == "data:audio/wav;base64"
    with soundfile.SoundFile(io.BytesIO(base64.b64decode(data))) as file:
      assert (file.format, file.subtype, file.samplerate) == ("WAV", "PCM_16", 16_000)
      np.testing.assert_allclose(file.read(), samples_N, atol=1 / 32768)


def test_dialogues_are_picked_by_the_rule(page):
  ids = ("memory-right", "pitch-wrong", "speakers-right")
  for index, name in enumerate(ids):
    article = page.article(index)
    assert name in article
    assert f"answer of {name}" in article
    assert f"The same on silence ✗ Wrong reply No thought. silent {name}" in article
  assert "✓ Right" in page.article(0)
  assert "✗ Wrong reply pitch-wrong" in page.article(1)
  assert "✓ Right" in page.article(2)
  assert "the reference" not in page.text


def test_dialogue_shows_its_turns_thought_and_scores(page):
  article = page.article(0)
  turns = "User Remember. Earlier reply, written by the data set Noted. User And?"
  assert turns in article
  assert "The model Thought I hear it. Yes." in article
  assert "Scores simulated listener naturalness 4.5 acoustic grounding 2.0" in article


def test_numbers_of_the_evaluation(page):
  right = "18 of 24 held-out questions answered right, 3 replies not readable"
  assert f"75 % {right} Asked" in page.text
  right = "9 of 24 answered right, 3 replies not readable; guessing gives 50 %"
  assert f"38 % {right}" in page.text
  assert "75 % 41–93 38 % 14–69" in page.text
  assert "pitch sound 8 6 75 % (41–93) 86 % 1 0 50 %" in page.text
  assert "pitch silence 8 3 38 % (14–69) 43 % 1 0 50 %" in page.text
  assert "4.31 4.12–4.53 2.25 2.04–2.46" in page.text
  assert "Scored by a simulated listener, not by people" in page.text


def test_bars_are_as_long_as_the_numbers(page):
  for kind, width in (("bar-hear", "75.0%"), ("bar-still", "37.5%")):
    assert len(page.of("rect", **{"class": kind, "x": "0", "width": width})) == 3
  assert len(page.of("line", **{"class": "chance", "x1": "50.0%", "x2": "50.0%"})) == 3
  ends = {"class": "whisker", "x1": f"{100 * 0.4093}%", "x2": f"{100 * 0.9285}%"}
  assert len(page.of("line", **ends)) == 3
  # 4.31 on a scale from 1 to 5 is 3.31 quarters along.
  assert len(page.of("circle", cx=f"{25 * (4.31 - 1)}%")) == 2


def test_pictures_have_words(page):
  pictures = page.of("svg", role="img")
  assert len(pictures) == 3 + 2 + 6 + 2 + 4  # tasks, dimensions, curves, head, clips
  assert all(picture["aria-label"] for picture in pictures)


def test_time_and_provenance(page):
  assert "Hear <i> resumed 1 min 01 s killed & resumed Total 7 min 38 s" in page.text
  assert "0123abcd+ (+: changed since)" in page.text
  assert "4 × TPU v5, 7 visible cores" in page.text
  assert "Python 3.12.3, jax 0.11.2" in page.text
  for part in ("python -m q --workdir D", "seed = 17", "feedbeef", "optim.lr"):
    assert part in page.text
  assert "world, temperature = 0.0 Config" in page.text
  assert "Smoke run" not in page.text


def test_commands_are_quoted(page, workdir):
  clip_path = f"{workdir}/evaluation/a.flac"
  quoted = clip_path.replace("'", "'\"'\"'")
  assert f"--checkpoint runs/q/sft \\ --audio '{quoted}'" in page.text
  assert f'folder = "{workdir}/export"' in page.text
  assert f'"path": "{clip_path}"' in page.text
  assert "2 files, 1.2 MB" in page.text
  assert "model.safetensors 1.2 MB" in page.text


def test_headline_of_some_all_and_none(page, tmp_path):
  assert "On 2 of 3 tasks the model hears." in page.text
  assert "On pitch and speakers it is right more often with the sound" in page.text
  assert "On memory it is not clearly better with the sound than on sil" in page.text
  assert page.text.count("✓ hears") == 2
  assert page.text.count("✗ no better than silence") == 1
  every = read(report.write(make(tmp_path / "all", smoke=True)))
  assert "The model hears: on all 3 tasks the sound helps." in every.text
  assert "not clearly better" not in every.text
  assert "Smoke run." in every.text
  none = read(report.write(make(tmp_path / "none", hearing=())))
  assert "The model does not hear: on no task does the sound help." in none.text
  assert "On pitch, speakers and memory it is not clearly better" in none.text
  assert "✓ hears" not in none.text
  assert "more often with the sound" not in none.text


@pytest.mark.parametrize(
  "name",
  [
    *("stages.json", "evaluation/world.json", "evaluation/world.items.jsonl"),
    *("hear/metrics.jsonl", "sft/manifest.json", "sft/config.json", "export"),
  ],
)
def test_missing_file_is_named(tmp_path, name):
  folder = make(tmp_path / "q")
  (folder / name).rename(folder / "elsewhere")
  with pytest.raises(ValueError, match=f"there is no .*{re.escape(name)}"):
    report.write(folder)
  assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda w: w["tasks"]["pitch"].pop("low"), r"task 'pitch': lacks \['low'\]"),
    (lambda w: w["tasks"]["pitch"]["silence"].pop("n"), r"pitch', silence: lacks"),
    (lambda w: w["dimensions"]["naturalness"].pop("mean"), "lacks .'mean'"),
    (lambda w: w.update(simulated=False), "simulated is False"),
    (lambda w: w["tasks"].clear(), "nothing was evaluated"),
  ],
)
def test_incomplete_evaluation_is_an_error(tmp_path, change, message):
  folder = make(tmp_path / "q")
  value = world(TASKS)
  change(value)
  (folder / "evaluation" / "world.json").write_text(json.dumps(value))
  with pytest.raises(ValueError, match=message):
    report.write(folder)


def test_unknown_condition_is_an_error(tmp_path):
  rows = [row | {"condition": "noise"} for row in items()]
  folder = make(tmp_path / "q", rows=rows)
  with pytest.raises(ValueError, match=r"'noise'; the choices are .*'silence'"):
    report.write(folder)


def test_missing_audio_names_dialogue_and_places(tmp_path):
  folder = make(tmp_path / "q")
  (folder / "world" / "b.flac").unlink()
  with pytest.raises(FileNotFoundError, match=r"memory-right: .*world/b\.flac"):
    report.write(folder)


@pytest.mark.parametrize(
  ("seconds", "text"),
  [(2.14, "2.1 s"), (9.97, "10 s"), (59.7, "1 min 00 s"), (3720, "1 h 02 min")],
)
def test_durations(seconds, text):
  assert plain([report.duration(seconds)]) == text


def test_command_line_prints_the_path(workdir, capsys):
  report.main(["--workdir", str(workdir)])
  assert capsys.readouterr().out.strip() == str(workdir / "report.html")
