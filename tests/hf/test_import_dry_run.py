"""Full-size directories of headers: every key and byte of the published models.

The keys are written out from the published list, not from the table that is tested; the
files are as long as real ones, but hold nothing behind the header.
"""

import json
import math

import pytest

from stepaudio_jax import convert
from stepaudio_jax.text import tokenizer
from tests.hf import directories, published_7b

R1 = published_7b.TEXT | {
  "hidden_size": 5120,
  "intermediate_size": 27648,
  "num_attention_heads": 40,
  "num_attention_groups": 8,
  "num_key_value_heads": 8,
  "num_hidden_layers": 64,
  "max_seq_len": 65536,
  "rms_norm_eps": 1e-5,
  "max_position_embeddings": 65536,
}


def shapes(text: dict) -> dict[str, tuple[int, ...]]:
  """Key → torch shape; heads are 128 wide."""
  D, F, V = text["hidden_size"], text["intermediate_size"], text["vocab_size"]
  K, E = 128 * text["num_key_value_heads"], 1280
  out = {"model.embed_tokens.weight": (V, D), "model.norm.weight": (D,)}
  out["lm_head.weight"] = (V, D)
  for i in range(text["num_hidden_layers"]):
    layer = f"model.layers.{i}."
    for name, width in (("q", D), ("k", K), ("v", K)):
      out[f"{layer}self_attn.{name}_proj.weight"] = (width, D)
      out[f"{layer}self_attn.{name}_proj.bias"] = (width,)
    out[f"{layer}self_attn.o_proj.weight"] = (D, D)
    out[f"{layer}mlp.gate_proj.weight"] = (F, D)
    out[f"{layer}mlp.up_proj.weight"] = (F, D)
    out[f"{layer}mlp.down_proj.weight"] = (D, F)
    out[f"{layer}input_layernorm.weight"] = (D,)
    out[f"{layer}post_attention_layernorm.weight"] = (D,)
  out |= {"encoder.conv1.weight": (E, 128, 3), "encoder.conv1.bias": (E,)}
  out |= {"encoder.conv2.weight": (E, E, 3), "encoder.conv2.bias": (E,)}
  out["encoder.positional_embedding.weight"] = (1500, E)
  for j in range(32):
    block = f"encoder.blocks.{j}."
    for name in ("query", "key", "value", "out"):
      out[f"{block}attn.{name}.weight"] = (E, E)
      if name != "key":
        out[f"{block}attn.{name}.bias"] = (E,)
    for name, shape in (("0", (4 * E, E)), ("2", (E, 4 * E))):
      out[f"{block}mlp.{name}.weight"] = shape
      out[f"{block}mlp.{name}.bias"] = shape[:1]
    for name in ("attn_ln", "mlp_ln"):
      out |= {f"{block}{name}.weight": (E,), f"{block}{name}.bias": (E,)}
  out |= {"encoder.after_norm.weight": (E,), "encoder.after_norm.bias": (E,)}
  out |= {"adapter.conv.weight": (E, E, 3), "adapter.conv.bias": (E,)}
  out |= {"adapter.linear1.weight": (2048, E), "adapter.linear1.bias": (2048,)}
  return out | {"adapter.linear2.weight": (D, 2048), "adapter.linear2.bias": (D,)}


def full_size(folder, text, names):
  """config, index, tokenizer and files with headers before holes."""
  folder.mkdir()
  audio = published_7b.AUDIO | {"llm_dim": text["hidden_size"]}
  config = {"model_type": "step_audio_2", "text_config": text}
  (folder / "config.json").write_text(
    json.dumps(config | {"audio_encoder_config": audio})
  )
  tokenizer.load("tiny").save(folder)
  wanted = shapes(text)
  where = {key: names[i % len(names)] for i, key in enumerate(wanted)}
  for name in names:
    rows, end = {}, 0
    for key in (key for key in wanted if where[key] == name):
      begin, end = end, end + 2 * math.prod(wanted[key])
      row = {"dtype": "BF16", "shape": [*wanted[key]], "data_offsets": [begin, end]}
      rows[key] = row
    head = json.dumps(rows).encode()
    with (folder / name).open("wb") as file:
      file.write(len(head).to_bytes(8, "little") + head)
      file.truncate(8 + len(head) + end)
  directories.write_index(folder, where)
  return folder


@pytest.mark.parametrize(
  ("text", "names", "keys", "parameters", "bytes_"),
  [
    (
      published_7b.TEXT,
      [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)],
      832,
      8_315_179_264,
      16_630_358_528,
    ),
    (
      R1,
      [f"model-0000{i}.safetensors" for i in range(1, 8)],
      1264,
      33_487_033_600,
      66_974_067_200,
    ),
  ],
)
def test_published_models_map_whole(
  tmp_path, capsys, text, names, keys, parameters, bytes_
):
  folder = full_size(tmp_path / "hf", text, names)
  used = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
  assert used < 10**6  # so this test costs no disk
  convert.main(["import", "--from", str(folder), "--dry-run"])
  printed = capsys.readouterr().err.splitlines()
  assert printed[-1] == (
    f"{keys} keys mapped, none missing, none left over; {parameters:,} parameters, "
    f"{bytes_:,} bytes"
  )
  table = {line.split()[0]: line.split()[1:] for line in printed[2:7]}
  # Encoder: 15 a block, 4 of the convolutions, positions, 2 of the last norm.
  assert table["encoder"][:4] == ["487", "0", "0", "0"]
  assert table["adaptor"][0] == "6"
  assert table["decoder"][0] == str(12 * text["num_hidden_layers"] + 3)
  assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_what_is_missing_and_what_is_left_over_is_counted(tmp_path, capsys):
  small = published_7b.TEXT | {"num_hidden_layers": 1}
  folder = full_size(tmp_path / "hf", small, ["model-00001-of-00001.safetensors"])
  config = json.loads((folder / "config.json").read_text())
  config["text_config"]["num_hidden_layers"] = 2
  config["audio_encoder_config"]["n_audio_layer"] = 31
  (folder / "config.json").write_text(json.dumps(config))
  with pytest.raises(SystemExit) as stop:
    convert.main(["import", "--from", str(folder), "--dry-run"])
  assert stop.value.code == 2
  printed = capsys.readouterr().err
  assert "keys mapped, 12 missing, 15 left over; " in printed
  assert "  hf: missing tensor model.layers.1.mlp.up_proj.weight\n" in printed
  assert "  hf: tensor encoder.blocks.31.mlp_ln.bias has no place" in printed


def test_a_mesh_that_does_not_divide_is_told_in_a_dry_run(tmp_path):
  folder = full_size(
    tmp_path / "hf", published_7b.TEXT, ["model-00001-of-00001.safetensors"]
  )
  with pytest.raises(ValueError, match="does not fit 1 devices"):
    convert.import_([folder], None, dry_run=True, mesh="fsdp=2")
