"""Package metadata; ranges are those the tests were run with."""

import pathlib

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent

setup(
  name="stepaudio_jax",
  version="0.1.0",
  description="Audio reasoning models in JAX: the Step-Audio-R1.5 recipe end to end",
  long_description=(HERE / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=find_packages(include=["stepaudio_jax", "stepaudio_jax.*"]),
  package_data={
    "stepaudio_jax.text": ["tiny/*.json"],
    "stepaudio_jax.evals.parts": ["*.json"],
    "stepaudio_jax.hf": ["remote/*.py", "remote/*.jinja", "remote/*.md"],
    "stepaudio_jax.pages": ["*.css"],
    "stepaudio_jax.ablate": ["*.html"],
    "stepaudio_jax.report": ["*.html", "*.css"],
    "stepaudio_jax.inspect": ["*.html", "*.css", "*.js"],
  },
  install_requires=[
    "jax>=0.10,<0.13",
    "flax>=0.12,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12,<0.13",
    "tensorflow-datasets>=4.9.10,<4.10",
    "importlib_resources>=6",  # tfds 4.9.10 imports it without declaring it
    "grain>=0.2.18,<0.3",
    "librosa>=0.11,<0.12",
    "soundfile>=0.13,<0.15",
    "soxr>=0.5,<2",
    "ml-collections>=1.1,<2",
    "absl-py>=2.1,<3",
    "packaging>=23",
    "etils[epath]>=1.12,<2",
    "numpy>=2,<3",
    "scipy>=1.11,<2",
    "pyarrow>=21,<27",
    "tokenizers>=0.21,<0.24",
    "safetensors>=0.5,<0.9",
    "huggingface_hub>=1.31,<3",
    "espeakng-loader>=0.2.4,<0.3",
    "matplotlib>=3.9,<4",
    "scikit-learn>=1.5,<2",  # librosa brings it along
    "tqdm>=4.66,<5",
    "tensorboardX>=2.6,<3",
    "jinja2>=3.1,<4",
  ],
  extras_require={
    "tpu": ["jax[tpu]>=0.10,<0.13", "gcsfs>=2026"],
    "cuda": ["jax[cuda13]>=0.10,<0.13"],
    "test": [
      "torch==2.13.0",
      "transformers>=5,<6",
      "pytest>=8,<10",
      "pytest-xdist>=3.8,<4",
      "nbclient>=0.10,<0.12",
      "nbformat>=5.10,<6",
      "ipykernel>=6.29,<8",
      "ruff==0.17.5",
    ],
  },
)
