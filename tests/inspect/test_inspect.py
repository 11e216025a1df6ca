"""The page of a made-up benchmark's items, read back."""

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess

import pytest
import soundfile

from stepaudio_jax.inspect import __main__ as entry
from stepaudio_jax.inspect import command
from tests.report import folders
from tests.report.folders import item, tone

NASTY = "</script><img src=x onerror=alert(1)>"


class Page(html.parser.HTMLParser):
  """Start tags with their attributes, scripts by id, and what is seen."""

  def __init__(self, path):
    super().__init__()
    self.tags, self.scripts, self.words, self.inside = [], {}, [], None
    self.feed(path.read_text(encoding="utf-8"))
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag in ("script", "style"):
      self.inside = dict(attrs).get("id", tag)
      self.scripts[self.inside] = ""

  def handle_endtag(self, tag):
    if tag in ("script", "style"):
      self.inside = None

  def handle_data(self, data):
    if self.inside:
      self.scripts[self.inside] += data
    else:
      self.words.append(data)

  @property
  def text(self):
    return " ".join("".join(self.words).split())

  def json(self, name):
    return json.loads(self.scripts[name])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  place = tmp_path_factory.mktemp("inspect")
  soundfile.write(place / "a.wav", tone(440, 1.0, 16_000), 16_000)
  question = [{"type": "audio", "path": "a.wav"}, {"type": "text", "text": NASTY}]
  messages = [
    {"role": "system", "content": "S"},
    {"role": "human", "content": question},
  ]
  nasty = {"messages": messages, "gold": NASTY, "choices": [NASTY], "think": NASTY}
  nasty |= {"reply": NASTY, "raw": NASTY, "detail": {NASTY: [{"raw": NASTY}]}}
  items = [
    item("a", 1, **nasty, groups={NASTY: NASTY}),
    item("a", 0, condition="silence", **nasty),
    item("a", 1, sample=1, budget=64, **nasty),
    item("b", 0.5),
    item(f"c{NASTY}", None, reply=None),
    item("d", None, failed=NASTY),
  ]
  folders.write(place, "mmau", items, conditions={}, checkpoint=NASTY)
  return place


@pytest.fixture(scope="module")
def page(place):
  path = command.run(place, "mmau")
  assert str(path) == str(place / "mmau.html")
  return Page(path)


def test_rows_hold_what_the_items_say(page):
  rows = page.json("rows")
  keys = ["a", "a~silence~0~", "a~audio~1~64", "b", f"c{NASTY}", "d"]
  assert [row["key"] for row in rows] == keys
  verdicts = ["right", "wrong", "right", "part", "unparsed", "failed"]
  assert [row["verdict"] for row in rows] == verdicts
  first = rows[0]
  assert first["turns"][0] == {
    "role": "system",
    "think": None,
    "blocks": [{"text": "S"}],
  }
  assert first["turns"][1]["blocks"] == [{"clip": 0}, {"text": NASTY}]
  assert first["detail"] == {NASTY: [{"raw": NASTY}]}
  assert (first["official"], first["gold"], first["think_tokens"]) == (1, NASTY, 10)


def test_the_clip_is_there_once_and_can_be_decoded(page):
  (clip,) = page.json("clips")
  assert (clip["mime"], clip["seconds"]) == ("audio/mpeg", 1.0)
  content = base64.b64decode(page.scripts["clip-0"], validate=True)
  assert content[:2] == b"\xff\xf3"  # a frame of MPEG-2 layer III
  assert "clip-1" not in page.scripts
  assert "left out" not in page.text
  assert "could not be read" not in page.text


def test_replies_are_data_and_never_part_of_the_page(page):
  assert {tag for tag, _ in page.tags} == {
    *("html", "head", "meta", "title", "link", "style", "body", "header", "div", "p"),
    *("b", "h1", "code", "dl", "dt", "dd", "aside", "form", "input", "output", "ol"),
    *("button", "main", "script"),
  }
  assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]
  assert page.text.count(NASTY) == 1  # the checkpoint's name
  assert [tag for tag, _ in page.tags].count("script") == 4
  kinds = [a.get("type") for tag, a in page.tags if tag == "script"]
  assert kinds == ["application/json", "application/json", "text/plain", None]


def test_only_the_one_script_may_run_and_it_makes_no_html(page):
  policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
  digest = hashlib.sha256(page.scripts["script"].encode()).digest()
  assert f"script-src 'sha256-{base64.b64encode(digest).decode()}';" in policy
  assert "default-src 'none'" in policy
  assert "unsafe-eval" not in policy
  for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
    assert word not in page.scripts["script"]
  for _, attributes in page.tags:
    for key in ("src", "href", "action"):
      assert (attributes.get(key) or "#").startswith(("#", "data:"))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_published_rule_differs_only_where_it_was_asked(page):
  rule = re.search(r"const differs = .*?;\n", page.scripts["script"], re.S)[0]
  rows = [
    {"verdict": verdict, "sample": sample, "score": score, "official": official}
    for verdict, sample, score, official in (
      ("right", 0, 1, 1),
      ("right", 0, 1, 0),
      ("right", 0, 1, None),  # the rule leaves it out
      ("unparsed", 0, None, 0),
      ("unparsed", 0, None, None),
      ("right", 1, 1, None),  # a second sample
      ("failed", 0, None, 0),
    )
  ]
  command = [
    "node",
    "-e",
    f"{rule} console.log({json.dumps(rows)}.map(differs).join())",
  ]
  said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
  assert said.strip() == "false,true,true,false,false,false,false"


def test_replies_and_not_items_are_counted_where_samples_are_several(tmp_path):
  four = {"settings": {"samples": 4}}
  folders.write(tmp_path, "mmau", [item("a", 1)], conditions={}, **four)
  assert "items1 × 4 unparsed" in Page(command.run(tmp_path, "mmau")).text


def test_left_out_questions_and_sounds_are_told(place, tmp_path):
  path = command.run(place, "mmau", tmp_path / "x.html", limit=1, audio_mb=0.001)
  page = Page(path)
  assert [row["id"] for row in page.json("rows")] == ["a"] * 3
  assert "3 more are left out (--limit). 1 clip left out (--audio-mb)." in page.text
  assert page.scripts["clip-0"] == ""


def test_sounds_that_are_gone_are_told(tmp_path):
  block = {"type": "audio", "path": "/nowhere/a.wav"}
  messages = [{"role": "human", "content": [block]}]
  folders.write(tmp_path, "mmau", [item("a", 1, messages=messages)])
  page = Page(command.run(tmp_path, "mmau"))
  assert "1 clip could not be read." in page.text
  assert page.json("clips")[0]["absent"] == "/nowhere/a.wav: No such file or directory"


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"limit": 0}, "limit=0 must be at least 1"),
    ({"audio_mb": -1.0}, "audio_mb=-1.0 must not be negative"),
    ({"benchmark": "mmsu"}, r"no results of 'mmsu'; it has those of \['mmau'\]"),
    ({"results": "nowhere"}, "there is no folder nowhere"),
  ],
)
def test_wrong_arguments_are_refused(place, tmp_path, given, message):
  out = tmp_path / "x.html"
  with pytest.raises(ValueError, match=message):
    command.run(**{"results": place, "benchmark": "mmau", "out": out} | given)
  assert not out.exists()


def test_the_command_writes_and_tells_errors_in_one_line(place, tmp_path, capsys):
  out = str(tmp_path / "x.html")
  entry.main(["--results", str(place), "--benchmark", "mmau", "--out", out])
  assert capsys.readouterr().out.strip() == out
  with pytest.raises(SystemExit) as stop:
    entry.main(["--results", str(tmp_path), "--benchmark", "mmau"])
  assert stop.value.code == 2
  assert "holds no results" in capsys.readouterr().err
