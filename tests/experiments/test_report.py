"""The report of a made-up quick start, read back."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile

from experiments import report
from tests.experiments import quickstarts
from tests.experiments.pages import read
from tests.experiments.quickstarts import SCRIPT, TASKS, clip, items, make, world


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
  sounds = r"data:audio/wav;base64,[A-Za-z0-9+/=]*"
  source = re.sub(sounds, "", page.source)
  assert not re.search(r"(https?:)?//[a-z]|url\(|@import", source)
  assert "default-src 'none'" in page.of("meta")[1]["content"]
  assert len(page.source) < 3_000_000


def test_links_lead_to_sections(page):
  targets = {a["href"] for a in page.of("a")}
  assert targets == {f"#{section['id']}" for section in page.of("section")}


def test_text_of_the_data_is_escaped(page):
  assert not page.of("script")
  assert SCRIPT in page.text
  assert "Two & <b>loud</b>." in page.text
  assert "Hear <i>" in page.text
  assert "killed & resumed" in page.text


def test_headline_and_sentences_are_those_of_the_intervals(page):
  # RLHF − RLVR: gold −0.5 and +1.5 by turns, mean 2.5 / 7; accuracy 2/7 − 7/7.
  title = "RLVR is right more often; gold scores show no clear difference."
  assert page.text.count(title) == 2  # in the tab and on the page
  assert re.search(
    r"RLHF against RLVR: \+0\.36 on the gold mean \(−0\.\d\d to \+\d\.\d\d\), "
    r"−71\.4 points of accuracy \(−100\.0 to −\d\d\.\d\); the first interval holds",
    page.text,
  )
  # Against RLVR with KL: 3.5 − 3 everywhere; accuracy 2/7 − 3/7.
  assert "RLHF's KL: +0.50 on the gold mean (+0.50 to +0.50), −14.3 po" in page.text
  assert (
    "On the gold mean, RLHF is above the SFT start; RLVR and RLVR with KL are not "
    "clearly away from the SFT start." in page.text
  )
  assert "The SFT start hears on 2 of 3 tasks (pitch and speakers)" in page.text
  assert "Smoke run" not in page.text


def test_scoreboard(page):
  # Tokens and KL of the arms at the end, of the SFT start before the first step.
  facts = "Right answers {} % Reply, tokens {} KL to the start {}"
  for name, gold, right in (
    (
      "SFT start",
      "3.00 gold mean of 5 (3.00 to 3.00)",
      facts.format(43, 19.5, "0.000"),
    ),
    ("RLVR with KL", "3.00 gold mean", facts.format(43, 22.5, "0.250")),
    ("RLHF", "3.50 gold mean of 5 (3.50 to 3.50)", facts.format(29, 23.5, "0.375")),
  ):
    assert re.search(rf"{name} {re.escape(gold)}[^A-Z]*{re.escape(right)}", page.text)


def test_differences_that_hold_zero_are_grey(page):
  kinds = {kind: len(page.of("span", **{"class": f"gap {kind}"})) for kind in WAYS}
  # Up: gold mean and six dimensions of RLHF − RLVR with KL and of RLHF − SFT, accuracy
  # of RLVR − SFT; on held-out prompts the objectives, and RLHF's gold. Down: accuracy
  # of RLHF − RLVR, and on held-out prompts the gold of RLVR with KL.
  assert kinds == {"up": 14 + 1 + 3 + 1, "down": 1 + 1, "unclear": 40 - 16 + 1}


WAYS = ("up", "down", "unclear")


def test_numbers_and_dots_of_the_gold_scores(page):
  # Means 3.31, 3.41, 3.51, 3.61 on a scale from 1 to 5: (x − 1) quarters along.
  row = "3.31 3.12–3.73 3.41 3.12–3.73 3.51 3.12–3.73 3.61 3.12–3.73"
  assert page.text.count(row) == 6
  for colour, mean in ((5, 3.31), (2, 3.41), (1, 3.51), (0, 3.61)):
    dots = [
      a
      for a in page.of("circle", **{"class": f"f{colour}"})
      if float(a["cx"].rstrip("%")) == pytest.approx(25 * (mean - 1))
    ]
    assert len(dots) == 6
  assert "Gold scores: a simulated listener, not people" in page.text


def test_numbers_and_bars_of_the_accuracies(page):
  assert page.text.count("75 % 41–93 75 % 41–93 75 % 41–93 75 % 41–93 38 % 14–69") == 3
  assert len(page.of("rect", **{"class": "bar f2", "x": "0", "width": "75.0%"})) == 3
  assert len(page.of("rect", **{"class": "bar bar-still", "width": "37.5%"})) == 3
  assert len(page.of("line", **{"class": "chance", "x1": "50.0%", "x2": "50.0%"})) == 3
  ends = {"class": "whisker", "x1": f"{100 * 0.4093}%", "x2": f"{100 * 0.9285}%"}
  assert len(page.of("line", **ends)) == 12
  assert "pitch SFT start sound 8 6 75 % (41 to 93) 86 % 1 0 50 %" in page.text
  assert "pitch SFT start silence 8 3 38 % (14 to 69) 43 % 1 0 50 %" in page.text
  assert "pitch RLHF sound" in page.text
  assert "pitch RLHF silence" not in page.text  # it was not asked
  assert page.text.count("✓ hears") == 2
  assert page.text.count("✗ no better than silence") == 1
  assert "trained on prompts of pitch alone" in page.text
  assert page.text.count("prompts of the three arms") == 1


def test_proxy_beside_gold(page):
  gain = "0.25 → 0.75 +0.50 +0.31 to +0.69"
  stays = "1.00 → 1.00 0.00 0.00 to 0.00 Its own objective rose, gold did not clearly"
  assert f"RLVR 0.8 accuracy + 0.2 think format {gain} {stays}" in page.text
  assert re.search(
    rf"RLVR with KL .{{,40}}{re.escape(gain)} .{{,60}}rose, gold f", page.text
  )
  assert f"RLHF 2 correctness {gain} 1.00 → " in page.text
  assert "Its own objective rose, and so did gold." in page.text
  # Rewards 0 and 0.8, or none and 0.8; gold correctness 1 and 5.
  assert page.text.count("Its own objective reward 0.40") == 2
  assert page.text.count("Its own objective reward 0.80") == 1
  assert page.text.count("correctness 3.00") == 3
  assert "4 logged replies to training prompts, 2 of them without a reward" in page.text
  assert page.text.count("correctness – → 0.80 1.00 → 5.00 – –") == 1


def test_reward_model_beside_its_baselines(page):
  assert "Overall ✓ beats length over silence +10.0 points (+5.0 to +15.0)" in page.text
  assert "71 % 66–76 ceiling 84 %" in page.text
  assert page.text.count("not clearly above length") == 6
  assert "overall 88 20 71 % (66 to 76) 55 % (shorter) 61 % (56 to 66)" in page.text
  assert len(page.of("line", **{"class": "ceiling", "x1": "84.0%"})) == 7
  assert "simulated raters" in page.text


def test_lengths_and_kl_of_the_arms(page):
  # Bold lines end at the mean of the two steps: KL 0 and 0.1, 0.2, 0.3.
  kl = "KL to the SFT start, nats per token RLVR 0.05 RLVR with KL 0.10 RLHF 0.15"
  assert kl in page.text
  assert "Reply length, tokens RLVR 20.00 RLVR with KL 20.00 RLHF 20.00" in page.text


def test_the_first_dialogue_of_every_task_plays(page):
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


def test_dialogue_shows_turns_and_every_policy(page):
  article = page.article(0)
  assert "memory-long" in article
  assert "expected: answer of memory-long" in article
  turns = "User Remember. Earlier reply, written by the data set Noted. User And?"
  assert turns in article
  assert "the reference" not in page.text
  assert "SFT start ✓ Right I hear it. sft says memory-long" in article
  assert "RLVR with KL ✓ Right I hear it. rlvr_kl says memory-long" in article
  assert "emotional continuity 3.0 2.0 3.0 3.5" in article
  assert "RLHF ✗ Wrong reply I hear it. rlhf says pitch-first" in page.article(1)
  first = page.source.split("</article>")[0]
  assert first.count("<b>3.5</b>") == 6  # RLHF's are the highest


def test_pictures_have_words(page):
  pictures = page.of("svg", role="img")
  # Gold, accuracy, arms, reward model, dynamics, four stages, clips.
  assert len(pictures) == 6 + 3 + 6 + 7 + 4 + 8 + 4
  assert all(picture["aria-label"] for picture in pictures)


def test_time_and_provenance(page):
  assert "Hear <i> resumed 1 min 01 s killed & resumed Total 7 min 38 s" in page.text
  assert "0123abcd+ (+: changed since)" in page.text
  assert "4 × TPU v5, 7 visible cores" in page.text
  assert "Python 3.12.3, jax 0.11.2" in page.text
  for part in ("python -m q --workdir D", "seed = 17", "hear feedhear", "rlhf beef"):
    assert part in page.text
  assert "world, temperature = 0.0 Checkpoints runs/q/sft, runs/q/rlvr," in page.text


def test_commands_are_quoted(page, workdir):
  clip_path = f"{workdir}/evaluation/a.flac"
  quoted = clip_path.replace("'", "'\"'\"'")
  assert f"--checkpoint runs/q/rlhf \\ --audio '{quoted}'" in page.text
  assert f'folder = "{workdir}/export/rlhf" # or sft, rlvr, rlvr_kl' in page.text
  assert f'"path": "{clip_path}"' in page.text
  assert "2 files, 1.2 MB" in page.text


def test_smoke_run_says_so(tmp_path):
  page = read(report.write(make(tmp_path / "q", smoke=True, hearing=())))
  assert "Smoke run." in page.text
  assert "The SFT start does not hear: on no task" in page.text
  assert "✓ hears" not in page.text


@pytest.mark.parametrize(
  "name",
  [
    *("stages.json", "evaluation/sft/world.json", "evaluation/rlvr/world.items.jsonl"),
    *("hear/metrics.jsonl", "rlhf/manifest.json", "rlvr/config.json", "export/rlvr"),
    *("rlhf/heldout.json", "rlvr/samples.jsonl", "world/truth-train.jsonl"),
    "evaluation/rm/reward_model.json",
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
    (lambda w: w["tasks"].pop("memory"), r"tasks .*'memory'.*, but sft has"),
  ],
)
def test_incomplete_evaluation_is_an_error(tmp_path, change, message):
  folder = make(tmp_path / "q")
  value = world("sft")
  change(value)
  (folder / "evaluation" / "sft" / "world.json").write_text(json.dumps(value))
  with pytest.raises(ValueError, match=message):
    report.write(folder)


def test_unknown_condition_is_an_error(tmp_path):
  rows = {"rlvr": [row | {"condition": "noise"} for row in items("rlvr")]}
  folder = make(tmp_path / "q", rows=rows)
  with pytest.raises(ValueError, match=r"'noise'; the choices are .*'silence'"):
    report.write(folder)


def test_sample_of_an_unknown_dialogue_is_an_error(tmp_path):
  folder = make(tmp_path / "q")
  row = quickstarts.sample("rlhf", 1, "stranger", "Hm.", 0.0)
  (folder / "rlhf" / "samples.jsonl").write_text(json.dumps(row) + "\n")
  with pytest.raises(ValueError, match=r"rlhf/samples.jsonl: dialogue 'stranger'"):
    report.write(folder)


def test_missing_audio_names_dialogue_and_places(tmp_path):
  folder = make(tmp_path / "q")
  (folder / "world" / "b.flac").unlink()
  with pytest.raises(FileNotFoundError, match=r"memory-long: .*world/b\.flac"):
    report.write(folder)


def test_command_line_prints_the_path(workdir, capsys):
  report.main(["--workdir", str(workdir)])
  assert capsys.readouterr().out.strip() == str(workdir / "report.html")
