r"""Hugging Face directories to checkpoints of ours and back, with a parity check.

  python -m stepaudio_jax.convert import --from HF_DIR --to CKPT
  python -m stepaudio_jax.convert import --from QWEN2_AUDIO --from QWEN2_5 --to CKPT
  python -m stepaudio_jax.convert export --from CKPT --to HF_DIR
  python -m stepaudio_jax.convert check --a DIR --b DIR

An import takes a Step-Audio directory, Qwen2-Audio (its encoder), Qwen2.5 (its decoder)
or the last two together. --from may be hf://OWNER/NAME[@REVISION]. CKPT is what a run
leaves, at step 0. Every tensor must find its place, or nothing is written.
"""

import argparse
import contextlib
import functools
import json
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging as absl_logging
from etils import epath

from stepaudio_jax import logs, meshes, sharding, workdirs
from stepaudio_jax.core import errors, files, storage
from stepaudio_jax.hf import (
  card,
  export,
  heads,
  hub,
  parity,
  parity_table,
  plan,
  reading,
  sides,
  table,
)
from stepaudio_jax.models import sizes
from stepaudio_jax.text import tokenizer as tokenizers


def import_(
  sources: Sequence[str | epath.PathLike],
  to: epath.PathLike | None,
  *,
  dtype: str = "bfloat16",
  fresh: Sequence[str] | None = None,
  tokenizer: epath.PathLike | None = None,
  size: str = "step_audio_2_mini",
  mesh: str = "",
  seed: int = 0,
  dry_run: bool = False,
) -> plan.Plan:
  """Writes the checkpoint `to` of those directories; with `dry_run` nothing.

  Args:
    dtype, fresh, tokenizer, size: see `plan.plan`.
    mesh: "data=1,fsdp=2,tensor=2", of all devices; "" is one device.
    seed: of the parts that are made anew.

  Raises:
    FileExistsError: there is something at `to`.
    OSError: a source is not there.
    ValueError: with everything that is wrong; nothing is left at `to`.
  """
  if not dry_run:
    files.refuse_existing(to)
  folders = [hub.local(source) for source in sources]
  made = plan.plan(folders, dtype=dtype, fresh=fresh, tokenizer=tokenizer, like=size)
  for line in plan.summary(made).splitlines():
    logs.say(line)
  made.refuse()
  split = None
  if mesh:
    split = functools.partial(
      sharding.parameter, meshes.mesh(meshes.named_lengths(mesh))
    )
  wrong: dict[str, int] = {}
  leaves = reading.leaves(made, seed=seed, split=split, wrong=wrong)
  if dry_run:
    return made
  record = {
    "sources": [
      {"name": str(source), "kind": kind.name}
      for source, (_, kind) in zip(sources, made.sources, strict=True)
    ],
    "dtype": dtype,
    "fresh": [*made.fresh],
    "lacking": [*made.lacking],
    "left_out": sum(count.left_out for count in made.counts.values()),
  }
  with files.folder_aside(to) as aside:
    if mesh or files.is_remote(aside):
      storage.save_leaves(aside, reading.sizes(made), leaves)
    else:
      blank = storage.save_blank(aside, made.shapes, made.dtypes)
      sums = storage.sums(blank)
      wrong = reading.fill(made, blank, sums, seed=seed)
      storage.seal_filled(aside, blank, sums)
    workdirs.describe(aside, made.size, made.tokenizer)
    if made.heads:
      workdirs.describe_rewards(aside, **made.described)
    manifest = logs.manifest({"seed": seed}) | {"import": record}
    logs.write_json(aside / "manifest.json", manifest)
  if wrong:
    listed = ", ".join(f"{key}: {count:,}" for key, count in wrong.items())
    logs.say(f"warning: values that are not finite (infinite or NaN) in {listed}")
  logs.say(f"wrote the checkpoint {to} ({_weight(to)})")
  return made


def _weight(folder: epath.PathLike) -> str:
  """A folder's bytes."""
  lengths = [path.stat().length for path in files.within(folder)]
  return f"{len(lengths)} files, {sum(lengths):,} bytes"


def export_(
  source: epath.PathLike,
  to: epath.PathLike,
  *,
  dtype: str = "bfloat16",
  shard_gb: float = 5.0,
  tokenizer: epath.PathLike | None = None,
  name: str = "",
  license_: str = "",
  languages: Sequence[str] = ("en",),
) -> None:
  """Writes a Hugging Face directory of a run's newest step, or of one of its steps.

  Args:
    license_: of the weights, by its name on the Hub; "" names none, since only a person
      knows what the weights that these come from allow.

  Raises:
    FileExistsError: there is something at `to`.
    FileNotFoundError: there is no checkpoint, or no tokenizer.
    ValueError: see `export.export`.
  """
  if not shard_gb * 1e9 >= 1:
    raise ValueError(f"shard_gb={shard_gb:g} (--shard-gb) must be more than 0")
  files.refuse_existing(to)
  step, size = storage.step_folder(source), workdirs.load_size(source)
  held, described = storage.Leaves(source), workdirs.reward_dimensions(source)
  lacking = [path for path in table.our_shapes(size) if path not in held.shapes]
  if lacking:
    parts = sorted({path.split("/")[0] for path in lacking})
    raise ValueError(f"{source} holds no whole model; it lacks parameters of {parts}")
  # Others are a critic's or the heads of pre-alignment.
  order = [*table.our_shapes(size)]
  weights = export.Weights(
    held.read(order),
    {path: held.shapes[path] for path in order},
    {path: held.dtypes[path] for path in order},
    {path: held.files[path] for path in order if held.files},
    held.prove,
  )
  how = "file by file" if held.files else "through orbax, as a training run stores them"
  logs.say(f"{source}: parameters are read {how}")
  found = None
  if described:
    rows = heads.rows(held.shapes)
    lacking = [row.path for row in rows if row.path not in held.shapes]
    if lacking:
      raise ValueError(f"{source}: its reward heads lack {lacking}; train them again")
    leaves = dict(held.read([row.path for row in rows]))
    found = heads.Heads(leaves, described)
  export.export(
    weights,
    size,
    to,
    tokenizer=tokenizers.load(tokenizer)
    if tokenizer
    else workdirs.load_tokenizer(source),
    card=card.of_run(
      step.parent.parent,
      step.name,
      name=name or epath.Path(to).name,
      license_=license_,
      languages=languages,
    ),
    dtype=dtype,
    shard_bytes=round(shard_gb * 1e9),
    reward_heads=found,
  )
  logs.say(f"wrote the Hugging Face model {to} ({_weight(to)})")


def side(path: epath.PathLike) -> sides.Side:
  """What a workdir, one of its step folders or a Hugging Face directory holds.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: it is no model, or with everything that is wrong in it.
  """
  try:
    storage.step_folder(path)
  except FileNotFoundError:
    return sides.directory(path)
  size, rewards = workdirs.load_size(path), workdirs.reward_dimensions(path)
  dimensions = rewards.get("dimensions", ())
  return sides.held(path, storage.Leaves(path), size, dimensions)


def check(
  a: epath.PathLike,
  b: epath.PathLike,
  *,
  out: epath.PathLike | None = None,
  logits: bool = True,
) -> bool:
  """Prints how two directories of either kind differ; whether they are one model.

  They are if every tensor is bit-identical, or would be if the wider of two dtypes were
  rounded to the narrower, and all numbers are finite.

  Args:
    out: a file for the report as JSON.
    logits: compare predictions too, for which each model in turn is loaded.
  """
  report = parity.check(side(a), side(b), logits=logits)
  print(parity_table.table(report))
  if out:
    with files.aside(out) as partial:
      partial.write_text(json.dumps(report, indent=1))
  return report["verdict"] in ("equal", "equal after rounding")


def parser() -> argparse.ArgumentParser:
  out = argparse.ArgumentParser(
    prog="python -m stepaudio_jax.convert",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  commands = out.add_subparsers(dest="action", required=True)
  _import_flags(_command(commands, "import", "Hugging Face to ours"))
  _export_flags(_command(commands, "export", "ours to Hugging Face"))
  add = _command(
    commands,
    "check",
    "how two directories differ; exit status 1 where values do beyond the rounding of "
    "a wider dtype to the other's, or are not finite",
  ).add_argument
  add("--a", required=True, metavar="DIR", help="of either kind")
  add("--b", required=True, metavar="DIR", help="of either kind")
  add("--out", metavar="FILE", help="the report as JSON")
  add(
    "--no-logits",
    action="store_false",
    dest="logits",
    help="compare tensors alone, which holds a leaf in memory and not a model",
  )
  return out


def _command(commands: Any, name: str, what: str) -> argparse.ArgumentParser:
  return commands.add_parser(name, help=what, description=what, allow_abbrev=False)


def _import_flags(out: argparse.ArgumentParser) -> None:
  add = out.add_argument
  add(
    "--from",
    required=True,
    action="append",
    dest="sources",
    metavar="HF_DIR",
    help="a directory or hf://OWNER/NAME[@REVISION]; twice for encoder and decoder",
  )
  add("--to", metavar="CKPT", help="a new folder")
  add("--dtype", choices=[*plan.DTYPES], default="bfloat16", help="of the parameters")
  add(
    "--fresh",
    type=lambda text: tuple(filter(None, text.split(","))),
    metavar="PART,…",
    help="parts to initialise anew that no source has",
  )
  add("--tokenizer", metavar="DIR", help="another than the decoder's own")
  add(
    "--size",
    choices=[*sizes.SIZES],
    default="step_audio_2_mini",
    help="whose widths hold for parts that no source has",
  )
  add("--mesh", default="", metavar="AXIS=N,…", help=f"of {meshes.MESH_AXES}")
  add("--seed", type=int, default=0, metavar="N", help="of parts made anew")
  add("--dry-run", action="store_true", help="reads headers and prints, writes nothing")


def _export_flags(out: argparse.ArgumentParser) -> None:
  add = out.add_argument
  add("--from", required=True, dest="source", metavar="CKPT", help="a workdir or step")
  add("--to", required=True, metavar="HF_DIR", help="a new folder")
  add("--dtype", choices=[*export.DTYPES], default="bfloat16", help="of the tensors")
  add("--shard-gb", type=float, default=5.0, metavar="GB", help="of a file; else 5")
  add("--tokenizer", metavar="DIR", help="another than the checkpoint's own")
  add("--name", default="", help="on the model card; else the folder's")
  add("--license", default="", dest="license_", help="on the card; else none is named")
  add(
    "--language",
    nargs="+",
    default=("en",),
    dest="languages",
    metavar="CODE",
    help="on the card; else en",
  )


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
  """Orbax warns of what is meant here; our own warnings are not left out."""
  logger = absl_logging.get_absl_logger()
  logger.addFilter(_is_ours)
  try:
    yield
  finally:
    logger.removeFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
  """Or an error."""
  ours = pathlib.Path(__file__).parent in pathlib.Path(record.pathname).parents
  return ours or record.levelno >= logging.ERROR


def main(argv: Sequence[str] | None = None) -> None:
  parsing = parser()
  arguments = vars(parsing.parse_args(argv))
  action = arguments.pop("action")
  if action == "import" and not (arguments["to"] or arguments["dry_run"]):
    parsing.error("import needs --to, or --dry-run")
  with errors.readable(f"convert {action}"), _without_warnings():
    if action == "import":
      import_(**arguments)
    elif action == "export":
      export_(**arguments)
    elif not check(**arguments):
      raise SystemExit(1)


if __name__ == "__main__":
  main()
