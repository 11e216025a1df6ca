"""Folders of the Hugging Face Hub, fetched only where a name says hf://."""

from etils import epath

PREFIX = "hf://"
_PATTERNS = ("*.json", "*.safetensors", "merges.txt")


def local(name: str | epath.PathLike) -> epath.Path:
  """The folder itself, or of hf://OWNER/NAME[@REVISION] the Hub's cached copy.

  Raises:
    ValueError: no such form of a name.
    OSError: the Hub cannot be reached, or does not have it.
  """
  text = str(name)
  if not text.startswith(PREFIX):
    return epath.Path(name)
  repository, _, revision = text.removeprefix(PREFIX).partition("@")
  if repository.count("/") != 1 or not all(repository.split("/")):
    raise ValueError(f"{text!r} is not hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
  # Here, since all else works without it.
  import huggingface_hub
  from huggingface_hub import errors

  try:
    return epath.Path(
      huggingface_hub.snapshot_download(
        repository, revision=revision or None, allow_patterns=[*_PATTERNS]
      )
    )
  except (
    errors.HfHubHTTPError,
    errors.HFValidationError,
    OSError,
    ValueError,
  ) as error:
    why = str(error).strip().split("\n")[0]
    raise OSError(
      f"{text} could not be fetched ({type(error).__name__}: {why})"
    ) from error
