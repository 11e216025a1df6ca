"""The exported torch code against our model, beyond what tests/compat checks."""

import numpy as np
import pytest
import soundfile
import torch
import transformers
from torch.nn import functional

from stepaudio_jax.hf import table
from stepaudio_jax.hf.export import Weights, export
from tests.hf import exports

LENGTH = 96  # padded length of our batches
NEW = 12
# Valid frames of each clip. All remainders mod 8, so that every parity of frames,
# pooled frames and audio tokens occurs; the second row has none, the third has three.
FRAMES = ((49,), (), (3, 120, 34), (56, 63, 45, 26))


@pytest.fixture(scope="module")
def prompts(tokenizer):
  special = tokenizer.special
  return [exports.prompt(special, f, seed=i) for i, f in enumerate(FRAMES)]


@pytest.fixture(scope="module")
def inputs(prompts, tokenizer):
  return exports.torch_inputs(prompts, tokenizer.special.pad)


@pytest.fixture(scope="module")
def ours(params, prompts):
  """Our logits [B, LENGTH, V] of the prompts."""
  return exports.our_logits(params, prompts, LENGTH)


@pytest.fixture(scope="module")
def greedy(params, prompts):
  return exports.our_greedy(params, prompts, NEW)


@pytest.fixture
def encoder_calls(model):
  """Grows by the number of clips at every call of the encoder."""
  calls = []
  hook = model.encoder.register_forward_hook(
    lambda _module, args, _output: calls.append(len(args[0]))
  )
  yield calls
  hook.remove()


@pytest.fixture(autouse=True)
def _no_gradients():
  with torch.no_grad():
    yield


def generate(model, inputs, **settings):
  """New tokens of every row, greedy, never stopping early."""
  settings = {"do_sample": False, "max_new_tokens": NEW, **settings}
  ids = model.generate(**inputs, eos_token_id=None, **settings)
  return ids[:, inputs["input_ids"].shape[1] :].tolist()


def test_modules_are_the_table(model):
  state = model.state_dict()
  shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
  assert shapes == table.their_shapes(exports.SIZE)
  assert list(shapes) == list(table.their_shapes(exports.SIZE))
  assert model.dtype == torch.float32


def test_configuration(model, tokenizer):
  config = model.config
  assert type(config.text_config) is transformers.Qwen2Config
  assert config.text_config.architectures == ["Qwen2ForCausalLM"]
  assert config.audio_encoder_config.adapter_hidden == 80
  assert config.audio_patch_id == tokenizer.special.audio_patch
  assert model.generation_config.eos_token_id[-1] == tokenizer.special.eot
  assert config.tie_word_embeddings is False
  assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight


@pytest.mark.parametrize("row", range(len(FRAMES)))
def test_logits_of_one_prompt(model, prompts, ours, tokenizer, row):
  inputs = exports.torch_inputs(prompts[row : row + 1], tokenizer.special.pad)
  got = model(**inputs).logits[0].numpy()
  wanted = ours[row, : len(prompts[row].ids)]
  assert np.abs(wanted).max() > 1
  np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=0)


def test_what_lies_beyond_a_clip_changes_nothing(model, inputs):
  wavs = inputs["wavs"].clone()
  for mel, frames in zip(wavs, inputs["wav_lens"], strict=True):
    mel[:, frames + 2 :] = 1e4
  wavs = functional.pad(wavs, (0, 7), value=float("nan"))
  wanted = model.audio_features(inputs["wavs"], inputs["wav_lens"])
  got = model.audio_features(wavs, inputs["wav_lens"])
  torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_generate_stops_at_eot(model, inputs, greedy, tokenizer):
  """Whatever the third token of row 0 is: with it as <|EOT|>, padding follows."""
  ids = model.generate(
    **inputs, do_sample=False, max_new_tokens=NEW, eos_token_id=[greedy[0][2]]
  )
  new = ids[:, inputs["input_ids"].shape[1] :].tolist()
  stop = greedy[0].index(greedy[0][2]) + 1
  assert new[0][:stop] == greedy[0][:stop]
  assert set(new[0][stop:]) <= {tokenizer.special.pad}


def test_generate_without_a_cache(model, inputs, greedy, encoder_calls):
  assert generate(model, inputs, use_cache=False, max_new_tokens=3) == [
    row[:3] for row in greedy
  ]
  assert encoder_calls == [8] * 3


def test_a_later_turn_with_audio_reaches_an_old_cache(model, prompts, tokenizer):
  """The first half of a prompt is in the cache; the rest brings its own clips."""
  whole = exports.torch_inputs(prompts[3:], tokenizer.special.pad)
  end = whole["input_ids"][0].tolist().index(tokenizer.special.audio_end) + 2
  cache = transformers.DynamicCache()
  model(
    input_ids=whole["input_ids"][:, :end],
    wavs=whole["wavs"][:1],
    wav_lens=whole["wav_lens"][:1],
    past_key_values=cache,
    use_cache=True,
  )
  assert cache.get_seq_length() == end
  rest = {**whole, "wavs": whole["wavs"][1:], "wav_lens": whole["wav_lens"][1:]}
  got = generate(model, rest, past_key_values=cache)
  assert got == generate(model, whole)


def test_loss_is_the_next_tokens_cross_entropy(model, inputs):
  labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
  out = model(**inputs, labels=labels)
  log_probs = out.logits.log_softmax(-1)
  terms = [
    -log_probs[b, t - 1, labels[b, t]]
    for b, t in (labels != -100).nonzero().tolist()
    if t > 0
  ]
  torch.testing.assert_close(out.loss, torch.stack(terms).mean())


def test_only_the_last_logits(model, inputs):
  last = model(**inputs, logits_to_keep=1).logits
  torch.testing.assert_close(last, model(**inputs).logits[:, -1:])


def test_one_kind_of_input(model, inputs):
  """Embeddings beside ids would hide what the ids say of audio."""
  embeds = model.get_input_embeddings()(inputs["input_ids"])
  for given in ({}, {"input_ids": inputs["input_ids"], "inputs_embeds": embeds}):
    with pytest.raises(ValueError, match="input_ids or inputs_embeds, one of the two"):
      model(**given)
  wavs = {name: inputs[name] for name in ("wavs", "wav_lens")}
  with pytest.raises(ValueError, match="inputs_embeds hide where the audio goes"):
    model(inputs_embeds=embeds, **wavs)
  text = torch.full((1, 5), 300)
  embeds = model.get_input_embeddings()(text)
  torch.testing.assert_close(model(inputs_embeds=embeds).logits, model(text).logits)


def test_unusable_features_are_an_error(model, inputs):
  wavs, wav_lens = inputs["wavs"], inputs["wav_lens"]
  longest = int(wav_lens.max())
  for match, bad_wavs, bad_lens in (
    (r"not \[clips, 128, frames\]", wavs[:, :64], wav_lens),
    (r"not \[clips, 128, frames\]", wavs[:3], wav_lens),
    (rf"wav_lens \[{longest}\] with wavs of", wavs[:, :, : longest + 1], wav_lens),
    (r"wav_lens \[2\]", wavs[:1], torch.tensor([2])),
    ("cut clips at 25 s", functional.pad(wavs, (0, 3000)), wav_lens),
  ):
    with pytest.raises(ValueError, match=match):
      model.audio_features(bad_wavs, bad_lens)


def test_the_cards_example_runs(folder, tmp_path, monkeypatch, capsys):
  """The Python block of README.md, beside the export, with a shorter reply."""
  soundfile.write(tmp_path / "question.wav", np.zeros(8_000), 16_000)
  code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
  code = code.replace('folder = "."', f"folder = {str(folder)!r}").replace("512", "4")
  monkeypatch.chdir(tmp_path)
  exec(code, {})
  assert capsys.readouterr().out.strip()


def test_processor_to_reply(model, processor):
  """The two loaders of an export work together, audio and all."""
  sound = np.sin(np.arange(20_000) / 9).astype(np.float32)
  part = {"type": "audio", "audio": sound}
  batch = [
    [{"role": "user", "content": [part, {"type": "text", "text": "What is this?"}]}],
    [{"role": "user", "content": "Hello"}],
  ]
  inputs = processor(batch)
  reply = generate(model, inputs)
  other = {**inputs, "wavs": inputs["wavs"].flip(-1)}
  assert reply[0] != generate(model, other)[0]
  assert reply[1] == generate(model, other)[1]


def test_bfloat16_export(tmp_path, params, tokenizer, inputs, ours, prompts):
  """Loads as bfloat16, weights rounded once, logits near float32's."""
  folder = tmp_path / "half"
  weights = Weights.of(params)
  export(weights, exports.SIZE, folder, tokenizer=tokenizer, card=exports.CARD)
  half = transformers.AutoModelForCausalLM.from_pretrained(
    folder, trust_remote_code=True
  )
  assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
  wanted = torch.from_numpy(params["decoder"]["embed"]["embedding"]).bfloat16()
  assert torch.equal(half.model.embed_tokens.weight, wanted)
  got = half(**inputs).logits.float().numpy()
  for b, prompt in enumerate(prompts):
    count = len(prompt.ids)
    worst = np.abs(got[b, -count:] - ours[b, :count]).max()
    assert worst < 0.05 * np.abs(ours[b, :count]).max()
