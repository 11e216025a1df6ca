"""What an exported folder must do in any supported transformers, without our package.

  python -I check.py CASE        (CASE as tests/compat/case.py writes it)

needs torch, transformers, soundfile and soxr; run.sh runs it in the old releases, and
hf/test_compat.py in the installed one. Every check is a function of a `Case`.
"""

import contextlib
import importlib.util
import json
import pathlib
import shutil
import sys
import tempfile
import traceback

import safetensors.torch
import torch
import transformers

ATOL = 2e-5  # of logits near 1, float32 on both sides


class Case:
  """The loaded export, its inputs and our answers."""

  def __init__(self, folder):
    folder = pathlib.Path(folder)
    self.folder = folder / "model"
    self.tensors = safetensors.torch.load_file(folder / "inputs.safetensors")
    self.expected = json.loads((folder / "expected.json").read_text())
    names = ("input_ids", "attention_mask", "wavs", "wav_lens")
    self.inputs = {name: self.tensors[name] for name in names}
    self.model, self.info = load(self.folder, output_loading_info=True)
    self.processor = transformers.AutoProcessor.from_pretrained(
      self.folder, trust_remote_code=True
    )

  @property
  def rows(self):
    """Rows with audio, then those without."""
    has = (self.inputs["input_ids"] == self.expected["patch"]).any(1)
    return has.nonzero()[:, 0].tolist(), (~has).nonzero()[:, 0].tolist()

  def dialogues(self):
    """With samples in place of their names."""
    talks = json.loads(json.dumps(self.expected["dialogues"]))
    contents = [m["content"] for talk in talks for m in talk]
    for part in (p for c in contents if isinstance(c, list) for p in c):
      if part["type"] == "audio":
        part["audio"] = self.tensors["samples." + part["audio"]].numpy()
    return talks


def load(folder, **settings):
  return transformers.AutoModelForCausalLM.from_pretrained(
    folder, trust_remote_code=True, **settings
  )


def new_tokens(case, inputs=None, model=None, **settings):
  """Greedy replies to the batch; nothing stops them."""
  inputs = case.inputs if inputs is None else inputs
  settings = {
    "do_sample": False,
    "max_new_tokens": len(case.expected["greedy"][0]),
    "eos_token_id": None,
    **settings,
  }
  ids = (model or case.model).generate(**inputs, **settings)
  return ids[:, inputs["input_ids"].shape[1] :].tolist()


def assert_error(match, call):
  """`call` raises a ValueError that says `match`."""
  said = None
  try:
    call()
  except ValueError as error:
    said = str(error)
  assert said is not None, f"no error that says {match!r}"
  assert match in said, f"{match!r} is not in {said!r}"


def right_padded(inputs):
  out = dict(inputs)
  for name in ("input_ids", "attention_mask"):
    shifts = (inputs["attention_mask"] == 0).sum(1).tolist()
    rows = [row.roll(-s) for row, s in zip(inputs[name], shifts, strict=True)]
    out[name] = torch.stack(rows)
  return out


def every_weight_is_loaded(case):
  assert not any(case.info.values()), case.info
  assert case.model.dtype == torch.float32
  embedding = case.model.get_input_embeddings().weight
  assert case.model.get_output_embeddings().weight is not embedding


def logits_are_ours(case):
  """Of a left-padded batch, a right-padded one, and each row alone."""
  left, right = case.inputs, right_padded(case.inputs)
  got = {"left": case.model(**left).logits, "right": case.model(**right).logits}
  for b, mask in enumerate(left["attention_mask"]):
    wanted, count = case.tensors[f"logits.{b}"], int(mask.sum())
    assert wanted.abs().max() > 1
    for rows in (got["left"][b, -count:], got["right"][b, :count]):
      torch.testing.assert_close(rows, wanted, atol=ATOL, rtol=0)


def attention_of_every_kind(case):
  wanted = case.tensors["logits.3"]
  for kind in ("eager", "sdpa"):
    model = load(case.folder, attn_implementation=kind)
    got = model(**case.inputs).logits[3, -len(wanted) :]
    torch.testing.assert_close(got, wanted, atol=ATOL, rtol=0)


def an_unused_window_changes_nothing(case):
  """Published files name a sliding window that nothing uses; 4.49 masked by it."""
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / "windowed"
    shutil.copytree(case.folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["text_config"] |= {"sliding_window": 5, "max_window_layers": 1}
    (copy / "config.json").write_text(json.dumps(config))
    model = load(copy)
  got, wanted = model(**case.inputs).logits, case.model(**case.inputs).logits
  torch.testing.assert_close(got, wanted)


def greedy_is_ours(case):
  greedy = case.expected["greedy"]
  assert all(len(set(row)) > len(row) // 2 for row in greedy), greedy
  assert new_tokens(case) == greedy


def greedy_without_a_cache_is_ours(case):
  assert new_tokens(case, use_cache=False) == case.expected["greedy"]


def greedy_with_a_cache_made_before_is_ours(case):
  cache = transformers.DynamicCache()
  assert new_tokens(case, past_key_values=cache) == case.expected["greedy"]


def greedy_with_a_static_cache_is_ours(case):
  model = load(case.folder)  # old releases keep the cache as a part of the model
  got = new_tokens(case, model=model, cache_implementation="static")
  assert got == case.expected["greedy"]


def a_sampled_patch_is_a_token_as_any_other(case):
  """With a cache, without one and in a plain forward pass; beams live through it."""
  length, patch = case.inputs["input_ids"].shape[1], case.expected["patch"]

  def force(ids, scores):
    """Patches as the first, the second and the fourth token of every reply."""
    if ids.shape[1] - length in (0, 1, 3):
      scores = torch.full_like(scores, -1e9)
      scores[:, patch] = 0
    return scores

  settings = {"logits_processor": transformers.LogitsProcessorList([force])}
  replies = new_tokens(case, **settings)
  assert all(row[i] == patch for row in replies for i in (0, 1, 3)), replies
  assert new_tokens(case, use_cache=False, **settings) == replies
  new_tokens(case, num_beams=2, **settings)
  ids = torch.cat([case.inputs["input_ids"], torch.tensor(replies)], dim=1)
  mask = torch.cat([case.inputs["attention_mask"], torch.ones_like(ids[:, length:])], 1)
  whole = {**case.inputs, "input_ids": ids, "attention_mask": mask}
  logits = case.model(**whole, sampled=len(replies[0])).logits
  free = [i for i in range(len(replies[0])) if i not in (0, 1, 3)]
  for row, reply in enumerate(replies):
    for i in free:
      assert logits[row, length + i - 1].argmax() == reply[i], (row, i)
  assert_error("8 clips but 16 runs", lambda: case.model(**whole))


def every_clip_reaches_the_first_step(case):
  """The decoder's first input holds all features, in order, at the patches."""
  steps, encoded = [], []
  hooks = [
    case.model.model.register_forward_pre_hook(
      lambda _m, _a, kwargs: steps.append(kwargs["inputs_embeds"]), with_kwargs=True
    ),
    case.model.encoder.register_forward_pre_hook(
      lambda _m, args: encoded.append(len(args[0]))
    ),
  ]
  try:
    new_tokens(case)
  finally:
    for hook in hooks:
      hook.remove()
  wavs, wav_lens = case.inputs["wavs"], case.inputs["wav_lens"]
  assert encoded == [len(wavs)], encoded
  ids = case.inputs["input_ids"]
  assert [step.shape[1] for step in steps] == [ids.shape[1]] + [1] * (len(steps) - 1)
  patches = ids == case.expected["patch"]
  features = case.model.audio_features(wavs, wav_lens)
  assert len(features) == int(patches.sum()) == case.expected["audio_tokens"]
  torch.testing.assert_close(steps[0][patches], features)


def other_audio_gives_other_logits(case):
  """In the rows that hear it, and in no other."""
  other = {**case.inputs, "wavs": case.inputs["wavs"].flip(1)}
  change = case.model(**other).logits - case.model(**case.inputs).logits
  change = change[:, -1].abs().amax(-1)
  hearing, deaf = case.rows
  assert hearing
  assert deaf
  assert (change[hearing] > 0.05).all(), change
  assert (change[deaf] < ATOL).all(), change
  got, greedy = new_tokens(case, other), case.expected["greedy"]
  assert all(got[b] != greedy[b] for b in hearing)
  assert all(got[b] == greedy[b] for b in deaf)


def several_samples_hear_their_own_clips(case):
  greedy = case.expected["greedy"]
  got = new_tokens(case, do_sample=True, top_k=1, num_return_sequences=2)
  assert got == [row for row in greedy for _ in range(2)]
  beams = new_tokens(case, num_beams=2, max_new_tokens=1)
  assert beams == [row[:1] for row in greedy]


def lost_audio_is_an_error(case):
  """Whatever does not fit is named, in forward and in generate."""
  inputs = case.inputs
  wavs, wav_lens = inputs["wavs"], inputs["wav_lens"]
  swapped = [0, 2, 1, *range(3, 8)]
  more = {"wavs": wavs[[*range(8), 0]], "wav_lens": wav_lens[[*range(8), 0]]}
  wrong = {
    "wavs is None": {"wavs": None, "wav_lens": None},
    "need wav_lens": {"wav_lens": None},
    "run 3 of row 3": {"wavs": wavs[:7], "wav_lens": wav_lens[:7]},
    "clip 8 has no place": more,
    "clip 0 has no place": {"input_ids": torch.full_like(inputs["input_ids"], 300)},
    "clip 1 gives 15 audio tokens but row 2": {
      "wavs": wavs[swapped],
      "wav_lens": wav_lens[swapped],
    },
  }
  for match, changes in wrong.items():
    bad = {**inputs, **changes}
    for call in (
      lambda bad=bad: case.model(**bad),
      lambda bad=bad: new_tokens(case, bad),
    ):
      assert_error(match, call)
    assert_error(match, lambda bad=bad: new_tokens(case, bad, use_cache=False))


def padding_on_the_right_is_an_error_in_generate(case):
  """The next token would be read off a padded position."""
  bad = right_padded(case.inputs)
  lengths = bad["attention_mask"].sum(1)
  rows = (lengths < lengths.max()).nonzero()[:, 0].tolist()
  assert_error(f"rows {rows} are padded on the right", lambda: new_tokens(case, bad))


def processor_is_our_renderer(case):
  """Ids as our renderer makes them, clips cut and heard as ours are."""
  got = case.processor(case.dialogues())
  for row, mask, wanted in zip(
    got["input_ids"], got["attention_mask"], case.expected["dialogue_ids"], strict=True
  ):
    assert row[mask == 1].tolist() == wanted
    assert mask.tolist() == sorted(mask.tolist())
  heard = ("long.0", "long.1", "short.0", "short.0")
  assert len(got["wavs"]) == len(heard)
  for wav, frames, name in zip(got["wavs"], got["wav_lens"], heard, strict=True):
    wanted = case.tensors[f"mel.{name}"]
    assert wanted.shape[1] == int(frames) + 2
    torch.testing.assert_close(wav[:, : frames + 2], wanted, atol=1e-6, rtol=0)
    assert not wav[:, frames + 2 :].any()


def processor_to_reply(case):
  """The way of the model card; <|EOT|> ends a reply wherever it is sampled."""
  inputs = case.processor(case.dialogues())
  assert case.model.generation_config.eos_token_id[-1] == case.expected["eot"]
  ids = case.model.generate(**inputs, do_sample=False, max_new_tokens=4)
  new = ids[:, inputs["input_ids"].shape[1] :]
  assert new.shape[1] == 4
  assert len(case.processor.batch_decode(new)) == 3
  eos = [int(new[0, 1])]
  ids = case.model.generate(
    **inputs, do_sample=False, max_new_tokens=4, eos_token_id=eos
  )
  assert case.processor.tokenizer.pad_token_id == int(ids[0, -1])


def saved_again_and_loaded(case):
  """Model, config and processor, through save_pretrained and the three loaders."""
  auto = {"trust_remote_code": True}
  with tempfile.TemporaryDirectory() as folder:
    case.model.save_pretrained(folder)
    case.processor.save_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder, **auto)
    processor = transformers.AutoProcessor.from_pretrained(folder, **auto)
    model = load(folder)
  assert config.audio_encoder_config.adapter_hidden == 80
  assert type(config.text_config) is transformers.Qwen2Config
  got, wanted = processor(case.dialogues()), case.processor(case.dialogues())
  assert set(got) == set(wanted)
  assert all(torch.equal(got[name], wanted[name]) for name in wanted)
  before, after = case.model.state_dict(), model.state_dict()
  assert list(before) == list(after)
  assert all(torch.equal(before[name], after[name]) for name in before)
  torch.testing.assert_close(
    model(**case.inputs).logits, case.model(**case.inputs).logits
  )


def made_from_a_config(case):
  """A fresh model of the same modules, finite wherever its weights come from."""
  auto = {"trust_remote_code": True}
  config = transformers.AutoConfig.from_pretrained(case.folder, **auto)
  fresh = transformers.AutoModelForCausalLM.from_config(config, **auto)
  shapes = {key: tensor.shape for key, tensor in case.model.state_dict().items()}
  assert {key: tensor.shape for key, tensor in fresh.state_dict().items()} == shapes
  assert all(torch.isfinite(p).all() for p in fresh.parameters())


def half_precision(case):
  """bfloat16 weights on demand; logits near those of float32."""
  model = load(case.folder, torch_dtype=torch.bfloat16)
  assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
  got, wanted = model(**case.inputs).logits, case.model(**case.inputs).logits
  mask = case.inputs["attention_mask"] == 1
  worst = (got.float() - wanted)[mask].abs().max()
  assert worst < 0.1 * wanted[mask].abs().max(), worst


CHECKS = (
  every_weight_is_loaded,
  logits_are_ours,
  attention_of_every_kind,
  an_unused_window_changes_nothing,
  greedy_is_ours,
  greedy_without_a_cache_is_ours,
  greedy_with_a_cache_made_before_is_ours,
  greedy_with_a_static_cache_is_ours,
  a_sampled_patch_is_a_token_as_any_other,
  every_clip_reaches_the_first_step,
  other_audio_gives_other_logits,
  several_samples_hear_their_own_clips,
  lost_audio_is_an_error,
  padding_on_the_right_is_an_error_in_generate,
  processor_is_our_renderer,
  processor_to_reply,
  saved_again_and_loaded,
  made_from_a_config,
  half_precision,
)


def main(folder):
  """Runs all checks and returns how many failed."""
  if importlib.util.find_spec("stepaudio_jax"):
    sys.exit("stepaudio_jax is installed here: an export must work without it")
  print(f"transformers {transformers.__version__}, torch {torch.__version__}")
  torch.set_num_threads(1)
  failed = 0
  with torch.no_grad():
    case = Case(folder)
    for check in CHECKS:
      try:
        check(case)
      except Exception:
        traceback.print_exc(file=sys.stdout)
        failed += 1
        print(f"FAILED {check.__name__}")
      else:
        print(f"passed {check.__name__}")
  print(f"{len(CHECKS) - failed} passed, {failed} failed")
  return failed


if __name__ == "__main__":
  with contextlib.suppress(AttributeError):  # renamed between releases
    transformers.logging.set_verbosity_error()
  sys.exit(bool(main(sys.argv[1])))
