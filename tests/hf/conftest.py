"""One export and one loaded model for all tests of this folder."""

import pytest
import torch
import transformers

from stepaudio_jax.hf.export import Weights, export
from stepaudio_jax.text import tokenizer as tokenizer_lib
from tests.hf import exports


@pytest.fixture(scope="session")
def tokenizer():
  return tokenizer_lib.load("tiny")


@pytest.fixture(scope="session")
def params():
  return exports.random_params(exports.SIZE, seed=3)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, params, tokenizer):
  folder = tmp_path_factory.mktemp("hf") / "exported"
  card = exports.CARD
  export(
    Weights.of(params),
    exports.SIZE,
    folder,
    tokenizer=tokenizer,
    card=card,
    dtype="float32",
  )
  return folder


@pytest.fixture(scope="session", autouse=True)
def _quiet_and_small(tmp_path_factory):
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  with pytest.MonkeyPatch.context() as monkeypatch:
    exports.own_module_cache(monkeypatch, tmp_path_factory.mktemp("modules"))
    yield
  torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model(folder):
  loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
    folder, trust_remote_code=True, output_loading_info=True
  )
  assert not any(info.values()), info
  return loaded


@pytest.fixture(scope="session")
def processor(folder):
  return transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
