"""stepaudio_jax.generate and transformers on the export write the same text.

Both sides hold the same bfloat16 weights and compute in float32: ours from a
checkpoint, recordings and a file of dialogues; theirs from the export's own processor
and modeling code, all dialogues in one left-padded batch.

Greedy replies are compared token by token. Sampled ones cannot be compared generator
against generator: our sampler adds Gumbel noise from one counter-based key a row and
step, torch draws multinomially from one stateful stream for the whole batch, so no pair
of seeds gives both the same randomness. What must agree is the rest: the tempered
distribution, what top-k and top-p leave of it, and the token that given randomness
picks. So transformers' own warpers are followed here by the noise that our sampler
draws (a test written out from its documentation), and the distributions themselves are
compared, with draws by inverse CDF from shared uniforms.
"""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import soundfile
import torch
import transformers
from transformers.generation import logits_process

from stepaudio_jax import checkpoint, generate, workdirs
from stepaudio_jax.core.types import TrainState
from stepaudio_jax.evals.parts import prompts as prompts_lib
from stepaudio_jax.hf.export import Weights, export
from stepaudio_jax.sampling import draws
from tests.hf import exports

NEW = 12
SEED = 5
TEMPERATURE, TOP_K, TOP_P = 0.7, 40, 0.8
SECONDS = (0.5, 25, 25.001, 61)


def clip(seconds: float) -> dict:
  return {"type": "audio", "path": f"{seconds}.wav"}


def human(*content) -> dict:
  parts = [{"type": "text", "text": c} if isinstance(c, str) else c for c in content]
  return {"role": "human", "content": parts}


DIALOGUES = {
  "text only": [human("How are you?")],
  **{f"one clip of {s} s": [human(clip(s), "Who is it?")] for s in SECONDS},
  "three clips": [human(clip(0.5), "or", clip(25.001), clip(25), "?")],
  "multi-turn": [
    {"role": "system", "content": "Be kind."},
    human(clip(61), "What is this?"),
    {"role": "assistant", "think": "A low hum.", "content": "A song."},
    human("And this?", clip(0.5)),
  ],
}


# Of random weights: a head sharp enough for top-p to cut, and queries, positions and
# audio sharp enough that hundreds of audio tokens do not average to one loud constant.
SHARPER = {
  "decoder/head/kernel": 8,
  "decoder/layers/attn/query/kernel": 4,
  "encoder/positions": 10,
  "adaptor/linear2/kernel": 3,
}


@pytest.fixture(scope="module")
def rounded(params):
  """bfloat16 values as float32."""

  def leaf(path, value):
    name = "/".join(key.key for key in path)
    sharp = value * np.float32(SHARPER.get(name, 1))
    return sharp.astype(ml_dtypes.bfloat16).astype(np.float32)

  return jax.tree_util.tree_map_with_path(leaf, params)


@pytest.fixture(scope="module")
def room(tmp_path_factory, rounded, tokenizer):
  """A checkpoint, an export, recordings and dialogues about them."""
  room = tmp_path_factory.mktemp("agreement")
  for seconds in SECONDS:
    count = round(16_000 * seconds)
    time_N = np.arange(count) / 16_000
    generator = np.random.default_rng(count)
    hum_N = np.sin(2 * np.pi * (200 + 90 * np.sin(time_N)) * time_N)
    samples_N = 0.2 * hum_N + 0.1 * generator.normal(size=count)
    soundfile.write(room / f"{seconds}.wav", samples_N, 16_000, subtype="FLOAT")
  lines = [json.dumps({"id": k, "messages": m}) for k, m in DIALOGUES.items()]
  (room / "dialogues.jsonl").write_text("\n".join(lines) + "\n")
  zero = np.zeros((), np.int32)
  checkpoints = checkpoint.Checkpoints(room / "run", every_steps=1, keep=1)
  state = TrainState(rounded, {}, (), zero, np.zeros(2, np.uint32))
  checkpoints.save(1, state, {})
  checkpoints.close()
  workdirs.describe(room / "run", exports.SIZE, tokenizer)
  weights = Weights.of(rounded)
  export(weights, exports.SIZE, room / "hf", tokenizer=tokenizer, card=exports.CARD)
  return room


@pytest.fixture(scope="module")
def theirs(room):
  return transformers.AutoModelForCausalLM.from_pretrained(
    room / "hf", trust_remote_code=True, dtype=torch.float32
  )


@pytest.fixture(scope="module")
def their_processor(room):
  return transformers.AutoProcessor.from_pretrained(room / "hf", trust_remote_code=True)


@pytest.fixture(scope="module")
def inputs(room, their_processor):
  def located(part):
    return {**part, "path": str(room / part["path"])} if "path" in part else part

  batch = [
    [
      {**m, "content": [located(part) for part in m["content"]]}
      if isinstance(m["content"], list)
      else m
      for m in messages
    ]
    for messages in DIALOGUES.values()
  ]
  return their_processor(batch)


def ours(room, name: str, **options) -> list[dict]:
  """A rollout row of each dialogue."""
  counts = generate.rollouts(
    checkpoint=room / "run",
    jsonl=room / "dialogues.jsonl",
    out=room / name,
    cache=room / "cache",
    max_new_tokens=NEW,
    batch_size=len(DIALOGUES),
    **options,
  )
  assert counts["failed"] == 0
  rows = [json.loads(line) for line in (room / name).read_text().splitlines()]
  assert [row["dialogue_id"] for row in rows] == [*DIALOGUES]
  return rows


def new_ids(model, inputs, **settings) -> list[list[int]]:
  """Replies as `generate` of transformers ends them, padding cut off."""
  with torch.no_grad():
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=NEW, **settings)
  ends = set(model.generation_config.eos_token_id)
  rows = ids[:, inputs["input_ids"].shape[1] :].tolist()
  stops = [next((t + 1 for t, i in enumerate(row) if i in ends), NEW) for row in rows]
  return [row[:stop] for row, stop in zip(rows, stops, strict=True)]


def assert_varied(replies: list[list[int]]) -> None:
  """That agreement is no accident of a model that says one thing for ever."""
  assert len({tuple(reply) for reply in replies}) == len(replies)
  assert all(len(set(reply)) >= min(4, len(reply)) for reply in replies)
  assert sum(len(reply) for reply in replies) > len(replies) * NEW // 2


def assert_same(rows: list[dict], replies: list[list[int]], processor) -> None:
  for row, reply in zip(rows, replies, strict=True):
    assert row["token_ids"] == reply, row["prompt_id"]
    text = processor.decode(reply, skip_special_tokens=True)
    assert row["text"] == text, row["prompt_id"]


def test_weights_are_the_same(theirs, rounded):
  got = theirs.model.embed_tokens.weight.numpy(force=True)
  np.testing.assert_array_equal(got, rounded["decoder"]["embed"]["embedding"])
  assert {p.dtype for p in theirs.parameters()} == {torch.float32}


def test_clips_are_cut_alike(inputs):
  """By hand: 0.5 s is 7 tokens, 25 s 313, 11 s 138; 16 samples of a tail are left."""
  frames = {0.5: [50], 25: [2500], 25.001: [2500], 61: [2500, 2500, 1100]}
  order = [*SECONDS, 0.5, 25.001, 25, 61, 0.5]
  assert inputs["wav_lens"].tolist() == [f for s in order for f in frames[s]]


def test_greedy_replies_are_token_identical(room, theirs, their_processor, inputs):
  rows = ours(room, "greedy.jsonl", temperature=0.0)
  replies = new_ids(theirs, inputs)
  assert_varied(replies)
  assert_same(rows, replies, their_processor)


class SharedNoise(logits_process.LogitsProcessor):
  """Adds our sampler's Gumbel noise, so that the likeliest token is the drawn one."""

  def __init__(self, noise_TBV: torch.Tensor):
    self.noise_TBV = noise_TBV
    self.step = 0

  def __call__(self, input_ids, scores):
    self.step += 1
    return scores + self.noise_TBV[self.step - 1]


class Noted(logits_process.LogitsProcessor):
  """Keeps the log-probabilities of every step."""

  def __init__(self):
    self.steps = []

  def __call__(self, input_ids, scores):
    self.steps.append(scores.log_softmax(-1))
    return scores


def shared_noise() -> torch.Tensor:
  """[NEW, B, V]: seed → prompt's own stream → copy 0 → step, as sampling.py says."""
  rows = []
  for name, messages in DIALOGUES.items():
    turn = sum(m["role"] == "assistant" for m in messages)
    key = jax.random.key(SEED)
    stream = prompts_lib.Prompt({"id": f"{name}#{turn}"}, None, (), ()).stream
    for number in (stream, 0):
      key = jax.random.fold_in(key, number)
    key_T = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(NEW))
    shape = (exports.SIZE.vocabulary,)
    rows.append(jax.vmap(lambda key, shape=shape: jax.random.gumbel(key, shape))(key_T))
  return torch.from_numpy(np.stack(rows, axis=1))


def warpers() -> list[logits_process.LogitsProcessor]:
  return [
    logits_process.TopKLogitsWarper(TOP_K),
    logits_process.TopPLogitsWarper(TOP_P),
  ]


def test_sampled_replies_are_identical_given_the_noise(
  room, theirs, their_processor, inputs
):
  rows = ours(
    room,
    "sampled.jsonl",
    temperature=TEMPERATURE,
    top_k=TOP_K,
    top_p=TOP_P,
    seed=SEED,
  )
  noted = Noted()
  tempered = logits_process.TemperatureLogitsWarper(TEMPERATURE)
  chain = [tempered, noted, *warpers(), SharedNoise(shared_noise())]
  processors = transformers.LogitsProcessorList(chain)
  replies = new_ids(theirs, inputs, logits_processor=processors)
  assert_varied(replies)
  assert_same(rows, replies, their_processor)
  for b, (row, reply) in enumerate(zip(rows, replies, strict=True)):
    wanted = [float(noted.steps[t][b, i]) for t, i in enumerate(reply)]
    np.testing.assert_allclose(row["logprobs"], wanted, atol=2e-4)


@pytest.fixture(scope="module")
def distributions(theirs, rounded, tokenizer):
  """Logits of both sides at every position of four prompts: ours, theirs [N, V]."""
  frames = ((49,), (), (3, 120, 34), (56, 63, 45, 26))
  prompts = [
    exports.prompt(tokenizer.special, f, seed=40 + i) for i, f in enumerate(frames)
  ]
  logits_BTV = exports.our_logits(rounded, prompts, 96)
  ours = [logits_BTV[b, : len(p.ids)] for b, p in enumerate(prompts)]
  with torch.no_grad():
    out = theirs(**exports.torch_inputs(prompts, tokenizer.special.pad)).logits
  theirs_ = [out[b, -len(p.ids) :].numpy() for b, p in enumerate(prompts)]
  return np.concatenate(ours), np.concatenate(theirs_)


def test_tempered_distributions_agree(distributions):
  ours_NV, theirs_NV = (
    torch.from_numpy(x).div(TEMPERATURE).log_softmax(-1) for x in distributions
  )
  assert ours_NV.max() > np.log(0.5)  # some tokens are likely
  assert (ours_NV - theirs_NV).abs().max() < 2e-4


@pytest.mark.parametrize(
  ("top_k", "top_p"), [(TOP_K, TOP_P), (TOP_K, None), (None, TOP_P)]
)
def test_the_same_tokens_are_cut_and_the_same_are_drawn(distributions, top_k, top_p):
  """Masks of both, and draws by inverse CDF from the same uniforms."""
  ours_NV, theirs_NV = (x / np.float32(TEMPERATURE) for x in distributions)
  settings = draws.Settings(1, stop_ids=(0,), pad_id=0, top_k=top_k, top_p=top_p)
  ours_NV = np.asarray(draws.truncated(jnp.asarray(ours_NV), settings))
  theirs_NV = torch.from_numpy(theirs_NV)
  if top_k:
    theirs_NV = logits_process.TopKLogitsWarper(top_k)(None, theirs_NV)
  if top_p:
    theirs_NV = logits_process.TopPLogitsWarper(top_p)(None, theirs_NV)
  kept_NV = np.isfinite(ours_NV)
  np.testing.assert_array_equal(kept_NV, np.isfinite(theirs_NV.numpy()))
  counts = kept_NV.sum(1)
  assert (counts.max() == top_k) if top_p is None else (len(set(counts)) > 5)
  uniforms_NK = np.random.default_rng(0).uniform(size=(len(ours_NV), 32))
  drawn = [_inverse_cdf(np.float64(x), uniforms_NK) for x in (ours_NV, theirs_NV)]
  np.testing.assert_array_equal(*drawn)
  assert len(np.unique(drawn[0])) > 100


def _inverse_cdf(logits_NV: np.ndarray, uniforms_NK: np.ndarray) -> np.ndarray:
  """The first id whose cumulative probability passes each uniform."""
  weight_NV = np.exp(logits_NV - logits_NV.max(1, keepdims=True))
  cdf_NV = np.cumsum(weight_NV, axis=1) / weight_NV.sum(1, keepdims=True)
  return np.stack(
    [np.searchsorted(c, u) for c, u in zip(cdf_NV, uniforms_NK, strict=True)]
  )
