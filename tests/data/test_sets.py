"""The files of data/sets: their contract, and tfds without TensorFlow."""

import inspect
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.data import schema
from stepaudio_jax.data.corpus import Corpus, load_set, set_names
from stepaudio_jax.data.jsonl import Row

FIELDS = {"id": "key", "human": "question", "assistant": "label"}


@pytest.mark.parametrize("name", set_names())
def test_every_set_has_the_two_functions_and_a_raw_sample(name):
  module = load_set(name)
  assert next(iter(inspect.signature(module.source).parameters)) == "split"
  assert len(inspect.signature(module.example).parameters) == 1
  assert "raw sample" in module.__doc__


@pytest.mark.parametrize(
  ("name", "kind"),
  [
    ("dialogue", schema.Dialogue),
    ("preference", schema.Preference),
    ("speech", schema.SpeechClip),
  ],
)
def test_the_raw_sample_of_the_docstring_loads(name, kind):
  module = load_set(name)
  text = module.__doc__[module.__doc__.index("{") :]
  raw, _ = json.JSONDecoder().raw_decode(text)
  assert isinstance(module.example(Row(raw, "doc:1", "/")), kind)


def samples_N() -> np.ndarray:
  return (1000 * np.sin(np.arange(1600) / 9)).astype(np.int16)


def wav() -> bytes:
  file = io.BytesIO()
  soundfile.write(file, samples_N(), 16_000, format="WAV", subtype="PCM_16")
  return file.getvalue()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """Two samples written by tfds itself, in array_record files."""

  class Heard(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = {
        "key": tfds.features.Text(),
        "question": tfds.features.Text(),
        "label": tfds.features.Text(),
        "options": tfds.features.Sequence(tfds.features.Text()),
        "number": tfds.features.Scalar(np.int64),
        "wav": tfds.features.Tensor(shape=(), dtype=np.object_),
        "pcm": tfds.features.Tensor(shape=(None,), dtype=np.int16),
        "broken": tfds.features.Tensor(shape=(), dtype=np.object_),
      }
      features = tfds.features.FeaturesDict(features)
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for k in range(2):
        yield (
          k,
          {
            "key": f"q{k}",
            "question": "Wie hoch? é",
            "label": f"label {k}",
            "options": ["low", "high"],
            "number": 10 + k,
            "wav": wav(),
            "pcm": samples_N(),
            "broken": b"\xff",
          },
        )

  folder = tmp_path_factory.mktemp("tfds")
  Heard(data_dir=folder, file_format="array_record").download_and_prepare()
  return str(folder)


def heard(data_dir, fields=FIELDS, **options) -> Corpus:
  options = {"name": "heard", "data_dir": data_dir, "fields": fields} | options
  return Corpus({"tfds": 1.0}, {"tfds": options}, "train")


class TestTfds:
  def test_text_and_the_bytes_of_a_file(self, data_dir):
    fields = FIELDS | {"audio": "wav", "choices": "options", "answer": "label"}
    corpus = heard(data_dir, fields)
    rows = {corpus.sample(0, k).id: corpus.sample(0, k) for k in range(len(corpus))}
    assert sorted(rows) == ["q0", "q1"]
    row = rows["q1"].row
    assert (row["answer"], row["choices"]) == ("label 1", ["low", "high"])
    human, assistant = row["messages"]
    assert human["content"][1] == {"type": "text", "text": "Wie hoch? é"}
    assert assistant["content"] == [{"type": "text", "text": "label 1"}]
    assert rows["q1"].audio[0].source == wav()

  def test_samples_become_a_file_with_the_same_samples(self, data_dir):
    corpus = heard(data_dir, FIELDS | {"audio": "pcm"}, sample_rate=16_000)
    read = audio_io.read(corpus.sample(0, 0).audio[0].source)
    np.testing.assert_array_equal(read, samples_N() / np.float32(32768))

  def test_without_an_id_the_place_names_the_row(self, data_dir):
    fields = {"human": "number", "assistant": "label"}
    sample = heard(data_dir, fields).sample(0, 1)
    assert sample.id == "heard[train]:1"
    assert sample.row["messages"][0]["content"][0]["text"] in ("10", "11")

  def test_another_name_of_the_split(self, data_dir):
    options = {"name": "heard", "data_dir": data_dir, "fields": FIELDS}
    options["splits"] = {"heldout": "train[:1]"}
    assert len(Corpus({"tfds": 1.0}, {"tfds": options}, "heldout")) == 1

  @pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
      ({"humans": "key"}, {}, r"\['humans'\] are unknown and \[\] missing; the choice"),
      (
        {"answer": "lable"},
        {},
        r"no features \['lable'\]; there are \['broken',",
      ),
      ({"audio": "pcm"}, {}, "audio of int16 and sample_rate None; wanted"),
      ({"audio": "number"}, {"sample_rate": 16_000}, "audio of int64"),
      ({"answer": "broken"}, {}, r"heard\[train\]:0: .* is not UTF-8"),
      ({"answer": "pcm"}, {}, "is a ndarray, not text"),
    ],
  )
  def test_errors(self, data_dir, changes, options, message):
    with pytest.raises(ValueError, match=message):
      heard(data_dir, FIELDS | changes, **options)

  def test_a_part_that_is_needed(self, data_dir):
    with pytest.raises(ValueError, match=r"\['assistant'\] missing"):
      heard(data_dir, {"human": "question"})

  def test_an_audio_feature_is_refused(self, data_dir, tmp_path):
    # Under another name, or tfds would ask the class above instead of the files.
    shutil.copytree(f"{data_dir}/heard", tmp_path / "sung")
    (path,) = tmp_path.rglob("dataset_info.json")
    path.write_text(path.read_text().replace('"heard"', '"sung"'))
    (path,) = tmp_path.rglob("features.json")
    document = json.loads(path.read_text())
    document["featuresDict"]["features"]["wav"] = {
      "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio",
      "audio": {"shape": {"dimensions": ["-1"]}, "dtype": "int64", "encoding": "none"},
    }
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"uses tfds\.features\.Audio .* sample_rate"):
      heard(str(tmp_path), FIELDS | {"audio": "wav"}, name="sung")

  def test_no_tensorflow_is_imported(self, data_dir):
    program = (
      "import sys; from stepaudio_jax.data.sets import tfds; "
      f"rows = tfds.source('train', name='heard', data_dir={data_dir!r}, "
      f"fields={FIELDS!r}); tfds.example(rows[0]); "
      "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
