"""The exported torch code against our model: logits, generation, lost audio."""

import copy

import numpy as np
import pytest
import soundfile
import torch
import transformers
from torch.nn import functional

from stepaudio_jax.hf import table
from stepaudio_jax.hf.export import export
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


def test_logits_of_a_batch(model, inputs, prompts, ours):
  """Left padding, clips of other lengths and of other rows change nothing."""
  got = model(**inputs).logits.numpy()
  for b, prompt in enumerate(prompts):
    count = len(prompt.ids)
    np.testing.assert_allclose(got[b, -count:], ours[b, :count], atol=1e-5, rtol=0)


def test_right_padding(model, prompts, ours, tokenizer):
  inputs = exports.torch_inputs(prompts, tokenizer.special.pad)
  for name in ("input_ids", "attention_mask"):
    for b, p in enumerate(prompts):
      inputs[name][b] = inputs[name][b].roll(len(p.ids))
  got = model(**inputs).logits.numpy()
  for b, p in enumerate(prompts):
    count = len(p.ids)
    np.testing.assert_allclose(got[b, :count], ours[b, :count], atol=1e-5, rtol=0)


def test_what_lies_beyond_a_clip_changes_nothing(model, inputs):
  wavs = inputs["wavs"].clone()
  for mel, frames in zip(wavs, inputs["wav_lens"], strict=True):
    mel[:, frames + 2 :] = 1e4
  wavs = functional.pad(wavs, (0, 7), value=float("nan"))
  wanted = model.audio_features(inputs["wavs"], inputs["wav_lens"])
  got = model.audio_features(wavs, inputs["wav_lens"])
  torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_generate(model, inputs, greedy, encoder_calls):
  assert generate(model, inputs) == greedy
  assert encoder_calls == [8]  # all clips, in the prompt's step only


def test_generate_stops_at_eot(model, inputs, greedy, tokenizer):
  """Whatever the third token of row 0 is: with it as <|EOT|>, padding follows."""
  ids = model.generate(
    **inputs, do_sample=False, max_new_tokens=NEW, eos_token_id=[greedy[0][2]]
  )
  new = ids[:, inputs["input_ids"].shape[1] :].tolist()
  stop = greedy[0].index(greedy[0][2]) + 1
  assert new[0][:stop] == greedy[0][:stop]
  assert set(new[0][stop:]) <= {tokenizer.special.pad}


def test_generate_with_a_cache_made_before(model, inputs, greedy, encoder_calls):
  """Releases from 4.57 on make the cache before step 1; the audio must survive."""
  cache = transformers.DynamicCache()
  assert generate(model, inputs, past_key_values=cache) == greedy
  assert encoder_calls == [8]


def test_generate_with_a_static_cache(model, inputs, greedy):
  assert generate(model, inputs, cache_implementation="static") == greedy


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


def test_several_samples_of_each_prompt(model, inputs, greedy):
  """Rows are repeated with their own clips: 1, none, 3 and 4 of them."""
  got = generate(model, inputs, do_sample=True, top_k=1, num_return_sequences=2)
  assert got == [row for row in greedy for _ in range(2)]


def test_beams_start_from_the_right_clips(model, inputs, greedy):
  got = generate(model, inputs, num_beams=3, max_new_tokens=1)
  assert got == [row[:1] for row in greedy]


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


def changed(inputs, **changes):
  return {**copy.copy(inputs), **changes}


def test_lost_audio_is_an_error(model, inputs):
  """Nothing but the exact clips is accepted, in forward and in generate."""
  wavs, wav_lens = inputs["wavs"], inputs["wav_lens"]
  order = [0, 2, 1, *range(3, 8)]
  wrong = {
    "wavs is None": changed(inputs, wavs=None, wav_lens=None),
    "need wav_lens": changed(inputs, wav_lens=None),
    "7 clips but 8 runs": changed(inputs, wavs=wavs[:7], wav_lens=wav_lens[:7]),
    # Same number of tokens in all, but two clips of row 2 have changed places.
    "clip 1 gives 15 audio tokens but row 2 of input_ids has 1 patches": changed(
      inputs, wavs=wavs[order], wav_lens=wav_lens[order]
    ),
    "8 clips but 0 runs": changed(
      inputs, input_ids=torch.full_like(inputs["input_ids"], 300)
    ),
  }
  for match, bad in wrong.items():
    with pytest.raises(ValueError, match=match):
      model(**bad)
    with pytest.raises(ValueError, match=match):
      generate(model, bad)


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
  export(params, exports.SIZE, folder, tokenizer=tokenizer, card=exports.CARD)
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


def test_saved_again_and_loaded(model, inputs, tmp_path):
  """What save_pretrained writes can be read, with its own longer config."""
  model.save_pretrained(tmp_path)
  again = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path, trust_remote_code=True
  )
  torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)
