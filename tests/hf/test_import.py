"""Directories of every kind → checkpoints → directories again, bit for bit."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from stepaudio_jax import convert, workdirs
from stepaudio_jax.core import storage, tree
from stepaudio_jax.hf import kinds, plan
from tests.hf import directories

BF16 = directories.BF16
LAYOUTS = {
  "one file": None,
  "one file, indexed": ["model-00001-of-00001.safetensors"],
  "R1.1": [f"model-0000{i}.safetensors" for i in range(1, 8)],
  "2-mini": [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)],
}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
  assert a.keys() == b.keys()
  for key in a:
    assert (a[key].dtype, a[key].shape) == (b[key].dtype, b[key].shape), key
    assert a[key].tobytes() == b[key].tobytes(), key


def there_and_back(source, folder, **options):
  """The tensors after an import and an export that both keep dtypes."""
  convert.import_([source], folder / "ckpt", dtype="keep", **options)
  convert.export_(folder / "ckpt", folder / "back", dtype="keep")
  return directories.read(folder / "back")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [BF16, np.dtype(np.float32)])
def test_step_audio_comes_back_bit_for_bit(tmp_path, layout, dtype):
  arrays = directories.tensors(dtype)
  source = directories.step_audio(tmp_path / "hf", arrays, names=LAYOUTS[layout])
  same(there_and_back(source, tmp_path), arrays)


def test_an_exported_directory_is_a_source_again(tmp_path):
  """Its config.json, tokenizer and index are read as a stranger's are."""
  source = directories.step_audio(tmp_path / "hf", directories.tensors())
  first = there_and_back(source, tmp_path)
  (tmp_path / "again").mkdir()
  same(there_and_back(tmp_path / "back", tmp_path / "again"), first)
  sizes = [workdirs.load_size(d / "ckpt") for d in (tmp_path, tmp_path / "again")]
  assert sizes[0] == sizes[1]


def test_every_value_has_its_place(tmp_path):
  """By hand: row h of head H is row H · 16 + h of the torch matrix."""
  arrays = directories.tensors(np.dtype(np.float32))
  source = directories.step_audio(tmp_path / "hf", arrays)
  convert.import_([source], tmp_path / "ckpt", dtype="float32")
  params = workdirs.load_params(tmp_path / "ckpt")
  query = params["decoder"]["layers"]["attn"]["query"]["kernel"]
  weight = arrays["model.layers.2.self_attn.q_proj.weight"]
  assert query[2, 11, 5, 7] == weight[5 * 16 + 7, 11]
  conv = params["encoder"]["conv1"]["kernel"]
  assert conv[2, 100, 9] == arrays["encoder.conv1.weight"][9, 100, 2]
  assert (
    params["adaptor"]["linear1"]["kernel"][3, 4]
    == (arrays["adapter.linear1.weight"][4, 3])
  )


@pytest.mark.parametrize(
  ("config", "name"),
  [
    (directories.NESTED, "config.json"),
    (directories.FLAT, "config.json"),
    (directories.FLAT, "config_origin.json"),
    (
      {"model_type": "step_audio_2", **directories.TEXT, **directories.AUDIO},
      "config_origin.json",
    ),
  ],
)
def test_nested_and_flat_configs_tell_one_size(tmp_path, config, name):
  arrays = directories.tensors()
  source = directories.step_audio(
    tmp_path / "hf", arrays, config=config, config_name=name
  )
  size = plan.plan([source]).size
  assert dataclass_without_name(size) == dataclass_without_name(directories.SIZE)


def dataclass_without_name(size):
  return {name: value for name, value in vars(size).items() if name != "name"}


def test_the_dtype_asked_for_is_stored(tmp_path):
  arrays = directories.tensors(np.dtype(np.float32))
  source = directories.step_audio(tmp_path / "hf", arrays)
  convert.import_([source], tmp_path / "ckpt")
  stored = storage.Leaves(tmp_path / "ckpt")
  assert set(stored.dtypes.values()) == {BF16}
  (leaf,) = (leaf for _, leaf in stored.read(["decoder/norm/scale"]))
  wanted = torch.from_numpy(arrays["model.norm.weight"]).to(torch.bfloat16)
  assert leaf.astype(np.float32).tolist() == wanted.float().tolist()


def test_bfloat16_becomes_masters_of_float32_for_training_alone(tmp_path):
  arrays = directories.tensors()
  source = directories.step_audio(tmp_path / "hf", arrays)
  convert.import_([source], tmp_path / "ckpt")
  masters = workdirs.load_params(tmp_path / "ckpt")
  assert {leaf.dtype for _, leaf in tree.named_leaves(masters)} == {np.dtype("float32")}
  used = workdirs.load_model(tmp_path / "ckpt").params
  assert {leaf.dtype for _, leaf in tree.named_leaves(used)} == {BF16}
  for (path, a), (_, b) in zip(
    tree.named_leaves(masters), tree.named_leaves(used), strict=True
  ):
    np.testing.assert_array_equal(a, b.astype(np.float32), err_msg=path)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
  folder = tmp_path_factory.mktemp("qwen")
  directories.qwen2_5(folder / "tied", tied=True)
  directories.qwen2_5(folder / "untied", tied=False, dtype=torch.float32)
  directories.qwen2_audio(folder / "audio")
  return folder


def state(folder):
  return safetensors.numpy.load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_qwen2_5_gives_a_decoder_and_nothing_else(tmp_path, qwen, name):
  convert.import_([qwen / name], tmp_path / "ckpt", dtype="keep")
  params = workdirs.load_params(tmp_path / "ckpt", keep_dtype=True)
  assert set(params) == {"decoder"}
  theirs = state(qwen / name)
  embedding = params["decoder"]["embed"]["embedding"]
  head = params["decoder"]["head"]["kernel"].T
  source = theirs["model.embed_tokens.weight"]
  unembedding = source if name == "tied" else theirs["lm_head.weight"]
  assert embedding.shape == head.shape == (158720, 16)
  for got, wanted in ((embedding, source), (head, unembedding)):
    assert got.dtype == wanted.dtype
    assert got[:151665].tobytes() == wanted[:151665].tobytes()
    mean = wanted[:151665].astype(np.float64).mean(axis=0).astype(wanted.dtype)
    np.testing.assert_array_equal(got[151665:], np.tile(mean, (158720 - 151665, 1)))
  size = workdirs.load_size(tmp_path / "ckpt")
  assert (size.width, size.layers, size.kv_heads) == (16, 2, 1)
  assert (size.norm_eps, size.rope_theta) == (2e-6, 1e4)
  special = workdirs.load_tokenizer(tmp_path / "ckpt").special
  assert (special.eot, special.bot, special.audio_patch) == (151665, 151666, 151690)
  with pytest.raises(ValueError, match=r"holds \['decoder'\] and lacks"):
    workdirs.load_model(tmp_path / "ckpt")


def test_qwen2_audio_gives_an_encoder_and_leaves_its_decoder(tmp_path, qwen):
  made = convert.import_([qwen / "audio"], tmp_path / "ckpt", dtype="keep")
  params = workdirs.load_params(tmp_path / "ckpt", keep_dtype=True)
  assert set(params) == {"encoder"}
  left_out = sum(not key.startswith("audio_tower") for key in state(qwen / "audio"))
  assert sum(count.left_out for count in made.counts.values()) == left_out > 10
  assert made.lacking == ("adaptor", "decoder")
  with pytest.raises(ValueError, match=r"lacks parameters of \['adaptor', 'decoder'"):
    convert.export_(tmp_path / "ckpt", tmp_path / "back")


def test_the_pair_is_the_papers_start(tmp_path, qwen):
  """Encoder and decoder untouched; only the adaptor is new, the same for one seed."""
  both = [qwen / "audio", qwen / "tied"]
  convert.import_(both, tmp_path / "a", dtype="keep", size="tiny")
  convert.import_(both, tmp_path / "b", dtype="keep", size="tiny", seed=1)
  convert.import_(both[::-1], tmp_path / "c", dtype="keep", size="tiny")
  a, b, c = (workdirs.load_model(tmp_path / name).params for name in "abc")
  assert tree.content_hash(a) == tree.content_hash(c)
  for part, equal in (("encoder", True), ("decoder", True), ("adaptor", False)):
    assert (tree.content_hash(a[part]) == tree.content_hash(b[part])) is equal
  assert a["adaptor"]["linear1"]["kernel"].shape == (24, 256)  # tiny's hidden width
  assert np.abs(a["adaptor"]["linear1"]["kernel"].astype(np.float32)).max() > 0.1
  recorded = json.loads((tmp_path / "a" / "manifest.json").read_text())
  assert recorded["import"]["fresh"] == ["adaptor"]
  assert [row["kind"] for row in recorded["import"]["sources"]] == [
    "Qwen2-Audio",
    "Qwen2.5",
  ]
  convert.export_(tmp_path / "a", tmp_path / "back", dtype="keep")
  exported = directories.read(tmp_path / "back")
  theirs = state(qwen / "tied")
  key = "model.layers.1.mlp.down_proj.weight"
  assert exported[key].tobytes() == theirs[key].tobytes()
  tower = state(qwen / "audio")
  names = {
    "conv2.bias": "conv2.bias",
    "positional_embedding.weight": "embed_positions.weight",
    "blocks.2.attn.key.weight": "layers.2.self_attn.k_proj.weight",
    "blocks.1.attn.query.bias": "layers.1.self_attn.q_proj.bias",
    "blocks.0.attn_ln.weight": "layers.0.self_attn_layer_norm.weight",
    "blocks.0.mlp.0.weight": "layers.0.fc1.weight",
    "blocks.1.mlp_ln.bias": "layers.1.final_layer_norm.bias",
    "after_norm.weight": "layer_norm.weight",
  }
  for ours, qwens in names.items():
    got, wanted = exported[f"encoder.{ours}"], tower[f"audio_tower.{qwens}"]
    assert got.tobytes() == wanted.tobytes(), ours


def test_transformers_computes_the_same_with_the_untied_decoder(tmp_path, qwen):
  """The export of an import against the model it came from."""
  pair = [qwen / "audio", qwen / "tied"]
  convert.import_(pair, tmp_path / "ckpt", size="tiny")
  convert.export_(tmp_path / "ckpt", tmp_path / "back")
  ours, theirs = (
    transformers.AutoModelForCausalLM.from_pretrained(
      folder, trust_remote_code=True, dtype=torch.float32
    )
    for folder in (tmp_path / "back", qwen / "tied")
  )
  ids = torch.tensor([[5, 17, 151644, 900]])
  got = ours(input_ids=ids).logits[..., :151665]
  wanted = theirs(input_ids=ids).logits[..., :151665]
  torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


def test_parts_are_made_anew_only_when_they_are_asked_for(tmp_path, qwen):
  made = convert.import_(
    [qwen / "tied"], tmp_path / "ckpt", fresh=["encoder", "adaptor"], size="tiny"
  )
  assert (made.fresh, made.lacking) == (("encoder", "adaptor"), ())
  model = workdirs.load_model(tmp_path / "ckpt")
  assert model.params["encoder"]["conv1"]["kernel"].shape == (3, 128, 128)
  assert {leaf.dtype for _, leaf in tree.named_leaves(model.params)} == {BF16}
  with pytest.raises(ValueError, match=r"\['decoder'\] cannot be fresh; .*'encoder'"):
    plan.plan([qwen / "tied"], fresh=["decoder"])
  with pytest.raises(ValueError, match=r"\['decoder'\] are in two of the directories"):
    plan.plan([qwen / "tied", qwen / "untied"])


def test_the_size_is_the_files_and_the_name_a_rows_only_where_all_shapes_agree():
  """A 7B's shapes with R1.1's epsilon keep the row's name and the file's epsilon."""
  text = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28}
  text |= {"num_key_value_heads": 4, "num_hidden_layers": 28, "vocab_size": 158720}
  text |= {"max_position_embeddings": 4096, "rope_theta": 5e5, "rms_norm_eps": 1e-5}
  audio = {"n_mels": 128, "n_audio_ctx": 1500, "n_audio_state": 1280}
  audio |= {"n_audio_head": 20, "n_audio_layer": 32}
  config = {"model_type": "step_audio_2", "text_config": text}
  config["audio_encoder_config"] = audio
  kind, problems = kinds.kind(config, {})
  assert problems == []
  size = kinds.size([kind], "tiny")
  assert size.name == "step_audio_2_mini"
  assert (size.norm_eps, size.rope_theta, size.max_positions) == (1e-5, 5e5, 4096)
  kind.fields["layers"] = 27
  assert kinds.size([kind], "tiny").name == "w3584l27e1280l32"


def test_float16_is_read_too(tmp_path):
  arrays = directories.tensors(np.dtype(np.float16))
  source = directories.step_audio(tmp_path / "hf", arrays)
  convert.import_([source], tmp_path / "ckpt", dtype="float32")
  (leaf,) = (
    x for _, x in storage.Leaves(tmp_path / "ckpt").read(["encoder/positions"])
  )
  wanted = arrays["encoder.positional_embedding.weight"].astype(np.float32)
  np.testing.assert_array_equal(leaf, wanted)
