"""What is wrong with a directory is told at once and whole, and nothing is written."""

import copy
import json
import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from etils import epath

from stepaudio_jax import convert
from stepaudio_jax.core import disk
from stepaudio_jax.hf import folder as folders
from stepaudio_jax.hf import plan, safe
from tests.hf import directories

NAMES = ["model-00001.safetensors", "model-00002.safetensors"]
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def arrays():
  return directories.tensors()


@pytest.fixture
def source(tmp_path, arrays):
  """A directory in order: the first tensor in a file, the others in another."""
  return directories.step_audio(tmp_path / "hf", dict(arrays), names=NAMES)


def problems_of(source):
  with pytest.raises(ValueError, match="cannot be imported") as error:
    plan.plan([source]).refuse()
  return str(error.value).splitlines()[1:]


def reconfigured(source, **changes):
  """Values of text_config; None takes one away."""
  config = copy.deepcopy(directories.NESTED)
  config["text_config"] |= changes
  config["text_config"] = {
    k: v for k, v in config["text_config"].items() if v is not None or k not in changes
  }
  (source / "config.json").write_text(json.dumps(config))


def rewritten(source, change):
  """The second file with other tensors, and an index of what is there."""
  held = safetensors.numpy.load_file(source / NAMES[1])
  change(held)
  safetensors.numpy.save_file(held, source / NAMES[1])
  where = dict.fromkeys(held, NAMES[1])
  first = safetensors.numpy.load_file(source / NAMES[0])
  directories.write_index(source, dict.fromkeys(first, NAMES[0]) | where)


def test_a_directory_in_order_has_no_problem(source):
  assert plan.plan([source]).problems == []


def test_all_problems_are_told_at_once_and_nothing_is_left(source, tmp_path, capsys):
  """One of each kind of the list; the table is printed before them."""

  def change(held):
    held["model.layers.7.mlp.up_proj.weight"] = held.pop("adapter.conv.bias")
    held["lm_head.weight"] = held["lm_head.weight"][:, :5].copy()
    held["encoder.conv1.bias"] = np.zeros(64, np.int32)

  rewritten(source, change)
  reconfigured(source, rms_norm_eps=None)
  document = json.loads((source / "tokenizer.json").read_text())
  kept = [r for r in document["added_tokens"] if r["content"] != "<audio_patch>"]
  (source / "tokenizer.json").write_text(json.dumps({**document, "added_tokens": kept}))
  index = json.loads((source / INDEX).read_text())["weight_map"]
  directories.write_index(source, index | {"encoder.conv2.bias": "absent.safetensors"})
  with pytest.raises(ValueError, match="cannot be imported") as error:
    convert.import_([source], tmp_path / "out")
  text = str(error.value)
  for wanted in (
    "config: rms_norm_eps is missing",
    "missing tensor adapter.conv.bias",
    "tensor model.layers.7.mlp.up_proj.weight has no place in the model",
    "tensor lm_head.weight is (1040, 5), not (1040, 96)",
    "tensor 'encoder.conv1.bias': dtype 'I32' is none of ['BF16', 'F16', 'F32']",
    "absent.safetensors is not there",
    "lacks the special tokens ['<audio_patch>']",
  ):
    assert wanted in text, wanted
  assert "79 keys mapped, 3 missing, 1 left over" in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"rms_norm_eps": 0}, "rms_norm_eps is 0, not a positive number"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, not a positive number"),
    ({"rope_theta": 10**400}, "rope_theta is 1000"),
    ({"rope_parameters": [1]}, "rope_parameters is [1], no object"),
    ({"rope_scaling": {"type": "yarn"}}, "rope_scaling is {'type': 'yarn'}; only None"),
    ({"num_attention_groups": 3}, "'num_attention_groups': 3} contradict each other"),
    ({"hidden_size": "96"}, "hidden_size is '96', not a natural number"),
    ({"hidden_size": True}, "hidden_size is True, not a natural number"),
    ({"intermediate_size": 10**12}, "intermediate_size is 1000000000000, not a nat"),
    ({"num_attention_heads": 5}, "width 96 is no multiple of heads 5"),
    ({"num_hidden_layers": None}, "num_hidden_layers is missing from text_config"),
    ({"rope_theta": None}, "rope_theta is missing"),
    ({"vocab_size": 900}, "1024 ids, the embedding 900 rows"),
    ({"tie_word_embeddings": True}, "tie_word_embeddings is true"),
  ],
)
def test_a_config_that_says_something_else(source, changes, message):
  reconfigured(source, **changes)
  assert any(message in line for line in problems_of(source)), problems_of(source)


def test_a_config_that_contradicts_the_tokenizer(source):
  config = {**directories.NESTED, "audio_patch_id": 7}
  (source / "config.json").write_text(json.dumps(config))
  (problem,) = problems_of(source)
  assert problem.startswith(
    "  config: audio_patch_id is 7, but the tokenizer's <audio_"
  )


def test_an_unknown_kind_names_the_kinds(source):
  (source / "config.json").write_text('{"model_type": "llama"}')
  with pytest.raises(
    ValueError, match=r"'llama'.*'step_audio_2', 'qwen2_audio' and 'q"
  ):
    plan.plan([source])


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": ' * 100_000])
def test_a_config_that_is_no_object(source, text):
  (source / "config.json").write_text(text)
  with pytest.raises(ValueError, match=r"is no model:\n  config.json is no JSON"):
    plan.plan([source])


def test_keep_refuses_layers_of_two_dtypes(source):
  key = "encoder.blocks.1.attn.out.bias"
  rewritten(source, lambda held: held.update({key: held[key].astype(np.float32)}))
  assert plan.plan([source]).problems == []
  (problem,) = plan.plan([source], dtype="keep").problems
  assert "layers of encoder/blocks/attn/out/bias differ in dtype" in problem
  assert f"'float32': '{key}'" in problem


def test_a_model_type_of_another_is_told(source):
  config = {**directories.NESTED, "model_type": "qwen3"}
  (source / "config.json").write_text(json.dumps(config))
  (problem,) = problems_of(source)
  assert "config: model_type is 'qwen3', not 'step_audio_2'" in problem


def test_what_is_missing_is_missing_and_no_more(source):
  reconfigured(source, rms_norm_eps=None)
  assert problems_of(source) == ["  config: rms_norm_eps is missing"]


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_broken_tokenizer_is_named(source, text):
  (source / "tokenizer.json").write_text(text)
  (problem,) = problems_of(source)
  assert f"tokenizer: {source / 'tokenizer.json'} " in problem


# ─── Names and links ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("/etc/passwd", "is no plain file name"),
    ("../hf/model-00002.safetensors", "is no plain file name"),
    ("..", "is no plain file name"),
    ("sub/model.safetensors", "is no plain file name"),
    ("a\\b.safetensors", "is no plain file name"),
    ("", "is no plain file name"),
    ("weights.bin", "is no .safetensors file; others are never opened"),
    ("folder.safetensors", "is no file"),
  ],
)
def test_an_index_may_name_only_files_of_the_folder(source, arrays, name, message):
  (source / "weights.bin").write_bytes(b"\x80\x04pickle")
  (source / "folder.safetensors").mkdir()
  directories.write_index(source, dict.fromkeys(arrays, name))
  assert message in problems_of(source)[0]


def test_links_out_of_the_folder_are_refused(source, tmp_path):
  (source / NAMES[1]).rename(tmp_path / "secret")
  (source / NAMES[1]).symlink_to(tmp_path / "secret")
  assert f"{NAMES[1]} is a link out of the folder" in problems_of(source)[0]


def test_links_of_the_hubs_cache_are_followed(source, tmp_path):
  """There a snapshot's files are links to the blobs of the same model."""
  hub = tmp_path / "models--a--b"
  (hub / "snapshots").mkdir(parents=True)
  source.rename(hub / "snapshots" / "1234")
  (hub / "blobs").mkdir()
  path = hub / "snapshots" / "1234" / NAMES[1]
  path.rename(hub / "blobs" / "abcd")
  path.symlink_to(os.path.join("..", "..", "blobs", "abcd"))
  assert plan.plan([hub / "snapshots" / "1234"]).problems == []
  (hub / "blobs" / "abcd").rename(tmp_path / "abcd")
  path.unlink()
  path.symlink_to(tmp_path / "abcd")
  assert "is a link out" in problems_of(hub / "snapshots" / "1234")[0]


def test_pickles_are_named_and_never_opened(source, monkeypatch):
  for name in (INDEX, *NAMES):
    (source / name).unlink()
  (source / "pytorch_model.bin").write_bytes(b"\x80\x04")
  monkeypatch.setattr(safe, "header", lambda path: pytest.fail(f"{path} was opened"))
  assert (
    "['pytorch_model.bin'] are pickles, which are never opened"
    in (problems_of(source)[0])
  )


@pytest.mark.parametrize(
  "text", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}']
)
def test_an_index_without_a_map_is_no_index(source, text):
  (source / INDEX).write_text(text)
  assert f"{INDEX} has no weight_map" in problems_of(source)[0]


def test_a_tensor_beside_the_index_is_a_problem(source):
  index = json.loads((source / INDEX).read_text())["weight_map"]
  del index["lm_head.weight"]
  directories.write_index(source, index)
  found = problems_of(source)
  assert f"  {NAMES[1]} has a tensor 'lm_head.weight' that {INDEX} does not" in found
  assert "  hf: missing tensor lm_head.weight" in found


def test_a_huge_config_is_not_read(source, monkeypatch):
  monkeypatch.setattr(folders, "_MAX_JSON_BYTES", 100)
  with pytest.raises(ValueError, match=r"config\.json is larger than 100 bytes"):
    plan.plan([source])


# ─── Headers ──────────────────────────────────────────────────────────────────────────


def written(path, header, data=b"\0" * 64, length=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  size = len(text) if length is None else length
  path.write_bytes(size.to_bytes(8, "little") + text + data)
  return epath.Path(path)


def row(begin, end, shape=(16,), dtype="F32"):
  return {"dtype": dtype, "shape": [*shape], "data_offsets": [begin, end]}


def test_a_file_of_the_library_is_read_as_the_library_reads_it(tmp_path, arrays):
  path = tmp_path / "a.safetensors"
  safetensors.numpy.save_file(arrays, path, {"format": "pt"})
  tensors, problems = safe.header(epath.Path(path))
  assert problems == []
  assert tensors.keys() == arrays.keys()
  scratch = disk.Scratch()
  for key, tensor in tensors.items():
    read = tensor.read(scratch)
    assert (read.dtype, read.tobytes()) == (arrays[key].dtype, arrays[key].tobytes())


def test_the_library_reads_our_layout(tmp_path, arrays):
  kinds = {key: (array.dtype, array.shape) for key, array in arrays.items()}
  head, starts, length = safe.layout(kinds)
  file = bytearray(length)
  file[: len(head)] = head
  for key, array in arrays.items():
    file[starts[key] : starts[key] + array.nbytes] = array.tobytes()
  (tmp_path / "a.safetensors").write_bytes(file)
  assert len(head) % 8 == 0
  with safetensors.safe_open(tmp_path / "a.safetensors", framework="numpy") as shard:
    assert shard.metadata() == {"format": "pt"}
    for key, array in arrays.items():
      assert shard.get_tensor(key).tobytes() == array.tobytes()


HEADERS = {
  "header beyond the file": (b"{}", {"length": 10**6}, "a header of 1000000 bytes"),
  "header of 2^63": (b"{}", {"length": 2**63}, "a header of 9223372036854775808 bytes"),
  "no JSON": (b"{a", {}, "no JSON object of tensors"),
  "no object": (b"[]", {}, "no JSON object of tensors"),
  "a list for a tensor": ({"a": []}, {}, "no dtype, shape and data_offsets"),
  "nesting": (b"[" * 10**5, {}, "no JSON object"),
  "a key twice": (
    b'{"a": {"dtype": "F32"}, "a": {"dtype": "F32"}}',
    {},
    "a key stands there twice",
  ),
  "dtype": ({"a": row(0, 64, dtype="F64")}, {}, "dtype 'F64' is none of"),
  "negative": ({"a": row(-4, 60)}, {}, "data_offsets [-4, 60] is no list of natural"),
  "fraction": ({"a": row(0, 64, (16.0,))}, {}, "shape [16.0] is no list of natural"),
  "true": ({"a": row(0, 4, (True,))}, {}, "shape [True] is no list of natural"),
  "reversed": ({"a": row(64, 0)}, {}, "data_offsets [64, 0] are no beginning and end"),
  "size": ({"a": row(0, 64, (15,))}, {}, "64 bytes for F32 [15]"),
  "beyond the end": ({"a": row(0, 68, (17,))}, {}, "truncated: tensor 'a' ends at"),
  "overlap": ({"a": row(0, 64), "b": row(60, 64, (1,))}, {}, "'b' overlaps 'a'"),
  "hole": ({"a": row(4, 64, (15,))}, {}, "4 bytes before tensor 'a' belong to none"),
  "rest": ({"a": row(0, 60, (15,))}, {}, "the last 4 bytes belong to no tensor"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_not_believed(tmp_path, name):
  header, options, message = HEADERS[name]
  path = written(tmp_path / "a.safetensors", header, **options)
  _, problems = safe.header(path)
  assert len(problems) == 1
  assert problems[0].startswith("a.safetensors: ")
  assert message in problems[0]


def test_a_huge_header_is_refused_before_it_is_read(tmp_path):
  path = epath.Path(tmp_path / "a.safetensors")
  with path.open("wb") as file:
    file.write((10**8 + 1).to_bytes(8, "little"))
    file.truncate(2 * 10**8)  # a hole: no byte of it is on the disk
  _, (problem,) = safe.header(path)
  assert "a header of 100000001 bytes is beyond" in problem


def test_an_empty_file_has_no_header(tmp_path):
  path = epath.Path(tmp_path / "a.safetensors")
  path.write_bytes(b"\x02\0")
  _, (problem,) = safe.header(path)
  assert "a header of 2 bytes is beyond" in problem


def test_a_file_cut_short_is_told_with_all_else(source):
  size = (source / NAMES[1]).stat().st_size
  os.truncate(source / NAMES[1], size - 1000)
  (source / "tokenizer.json").unlink()
  found = "\n".join(problems_of(source))
  assert f"{NAMES[1]}: truncated: tensor " in found
  assert f" of {size - 1000}" in found
  assert "tokenizer: no tokenizer" in found


def test_a_file_that_shrinks_while_it_is_read(source, tmp_path):
  (tensor,) = (t for key, t in folders.opened(source).tensors.items() if "lm_h" in key)
  os.truncate(source / NAMES[1], tensor.start + 10)
  with pytest.raises(ValueError, match=r"model-00002.* ended early"):
    tensor.read()
