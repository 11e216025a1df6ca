r"""Benchmarks of a checkpoint: JSON, items, a table and a plot of each.

  python -m stepaudio_jax.evaluate --checkpoint runs/sft --benchmark world \
    --data runs/world

That of one reward model also leaves noise.json beside it, which RLHF may read.
A benchmark is a file of evals/; its files lie in DATA/<name> or in DATA itself. Without
--out the results lie in the checkpoint's workdir under evaluation/<step>. A run that
was killed goes on where it was; the same command in several processes shares the work.
"""

import argparse
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import jax
from etils import epath
from matplotlib.figure import Figure

from stepaudio_jax import evals, workdirs
from stepaudio_jax.core import entry, errors, files, processes, recipe, seal, storage
from stepaudio_jax.evals.parts import controls as controls_lib
from stepaudio_jax.evals.parts import judging, pages, suite, tables
from stepaudio_jax.evals.parts.speaker import Speaker


def benchmark_names() -> list[str]:
  """The files of evals/; its folder parts/ is none."""
  return [*recipe.modules(evals)]


def load_benchmark(name: str) -> ModuleType:
  """evals/<name>.py."""
  return import_module(recipe.choose("benchmark", name, recipe.modules(evals)))


def run(
  *,
  checkpoint: epath.PathLike,
  benchmarks: Sequence[str],
  data: epath.PathLike,
  out: epath.PathLike | None = None,
  cache: epath.PathLike | None = None,
  limit: int | None = None,
  batch_size: int | None = None,
  max_new_tokens: int | None = None,
  temperature: float | None = None,
  seed: int | None = None,
  silence: bool | None = None,
  samples: int | None = None,
  controls: Sequence[str] | None = None,
  budgets: Sequence[int] | None = None,
  runs: Sequence[str] | None = None,
  rollouts: str | None = None,
  verdicts: str | None = None,
  judge: str | None = None,
  judge_key: str | None = None,
) -> dict[str, dict[str, Any]]:
  """Runs benchmarks, writes their files to `out`, and returns the summaries by name.

  Args:
    checkpoint: a workdir (its newest step) or one of its step folders; of reward models
      several, "runs/rm-0,runs/rm-1", whose mean is evaluated.
    data: where every benchmark finds its files.
    out: gets NAME.json, NAME.items.jsonl, NAME.md and NAME.png, and what else the
      benchmark draws, NAME.<plot>.png.
    cache: of encoder frames, to be shared between runs; by default out/cache.
    limit: only the first so many items of each benchmark.
    batch_size, max_new_tokens, temperature, seed, silence, samples, controls, budgets,
    runs, rollouts, verdicts: see the benchmark's Options; None is its default.
    judge: of the benchmarks that can be judged: "rule", a checkpoint, or
      "https://HOST/v1#MODEL"; None is each one's own default.
    judge_key: the environment variable that holds the endpoint's key.

  Raises:
    ValueError: an unknown benchmark, options that are impossible or that a benchmark
      does not have, or data or a checkpoint that is not right.
    FileNotFoundError: no checkpoint.
  """
  modules = {name: load_benchmark(name) for name in benchmarks}
  given = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
  given |= {"temperature": temperature, "seed": seed, "silence": silence}
  given |= {"samples": samples, "controls": controls, "budgets": budgets}
  given |= {"runs": runs, "rollouts": rollouts, "verdicts": verdicts}
  given = {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in given.items()
    if value is not None
  }
  options = {name: _options(name, module, given) for name, module in modules.items()}
  if limit is not None and limit < 1:
    raise ValueError(f"limit={limit} must be at least 1, or None for all")
  judged = {name: one for name, one in modules.items() if hasattr(one, "JUDGES")}
  judging.check(judged, judge, judge_key)
  data_folder = files.absolute(data)
  if not data_folder.is_dir():
    raise ValueError(f"there is no folder {data_folder} with the benchmarks' data")
  named = workdirs.members(checkpoint)
  alone = [name for name, one in modules.items() if not hasattr(one, "load_several")]
  if len(named) > 1 and alone:
    raise ValueError(f"checkpoint={str(checkpoint)!r}: {alone} take one alone")
  step_folder, *others = (files.absolute(storage.step_folder(one)) for one in named)
  workdir = step_folder.parent.parent
  entry.compilation_cache(workdir / "xla_cache")
  out = files.absolute(out or workdir / "evaluation" / step_folder.name)
  cache = epath.Path(cache) if cache else out / "cache"
  asked = {name: module for name, module in modules.items() if hasattr(module, "read")}
  places = {name: _place(data_folder, name) for name in modules}
  if len(modules) > 1:
    _check_files({name: (module, places[name]) for name, module in asked.items()})
  judges = judging.judges(judged, judge, judge_key, cache)
  speaker = Speaker(_loaded(suite, step_folder), cache) if asked else None
  summaries = {}
  for name, module in modules.items():
    place = places[name]
    known = {"data": str(data), "step": int(step_folder.name)}
    if name in asked:
      summary, items = suite.evaluate(
        module,
        speaker,
        place,
        out=out,
        options=options[name],
        judge=judges[name],
        limit=limit,
        known={"checkpoint": str(step_folder), "seal": seal.digest(step_folder)},
      )
    else:
      model = _loaded(module, step_folder, others)
      who = {"judge": judges[name]} if name in judged else {}
      summary, items = module.evaluate(
        model, place, cache=cache, options=options[name], limit=limit, **who
      )
    summary = {"benchmark": name, "checkpoint": str(checkpoint)} | summary
    summaries[name] = summary | {"settings": known | summary["settings"]}
    if processes.first():
      _write(out, name, module, summaries[name], items)
      if limit is None and not others and hasattr(module, "keep"):
        module.keep(step_folder, place, items)
  return summaries


def _place(data: epath.Path, name: str) -> epath.Path:
  return data / name if (data / name).is_dir() else data


def _check_files(asked: dict[str, tuple[ModuleType, epath.Path]]) -> None:
  """Reads all files once, so that the last benchmark's faults show at the start.

  Raises:
    ValueError: everything that is wrong with any of them.
  """
  faults = []
  for module, place in asked.values():
    try:
      module.read(place)
    except ValueError as error:
      faults.append(str(error))
  if faults:
    raise ValueError("\n".join(faults))


def _loaded(
  module: ModuleType, step_folder: epath.Path, others: Sequence[epath.Path] = ()
) -> Any:
  """What the benchmark needs of the checkpoint, on the device."""
  if others:
    model = module.load_several([step_folder, *others])
  else:
    model = getattr(module, "load", workdirs.load_model)(step_folder)
  return dataclasses.replace(model, params=jax.device_put(model.params))


def page(summary: dict[str, Any]) -> str:
  """A benchmark's summary in Markdown."""
  return _shown(load_benchmark(summary["benchmark"])).page(summary)


def _shown(module: ModuleType) -> ModuleType:
  """Where its page and plot are."""
  return pages if hasattr(module, "read") else module


def _options(name: str, module: ModuleType, given: dict[str, Any]) -> Any:
  kind = suite.Options if hasattr(module, "read") else module.Options
  known = [field.name for field in dataclasses.fields(kind)]
  unknown = sorted(set(given) - set(known))
  if unknown:
    raise ValueError(f"benchmark {name!r} has no option {unknown}; it has {known}")
  return kind(**module.DEFAULTS | given)


def _write(
  out: epath.Path,
  name: str,
  module: ModuleType,
  summary: dict[str, Any],
  items: list[dict[str, Any]],
) -> None:
  lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
  further = getattr(module, "plots", lambda summary: {})(summary)
  pictures = {f"{which}.png": _png(draw) for which, draw in further.items()}
  # Results that are half of another run are none: the summary goes first, comes last.
  (out / f"{name}.json").unlink(missing_ok=True)
  for ending, content in {
    "items.jsonl": "".join(lines).encode(),
    "md": page(summary).encode(),
    **pictures,
    "png": _png(lambda: _shown(module).plot(summary)),
    "json": json.dumps(summary, indent=1, allow_nan=False).encode(),
  }.items():
    with files.aside(out / f"{name}.{ending}") as partial:
      partial.write_bytes(content)


def _png(draw: Callable[[], Figure]) -> bytes:
  picture = io.BytesIO()
  tables.png(draw, picture)
  return picture.getvalue()


def _own(option: str) -> str:
  """What the benchmarks take where an option is not given."""
  modules = {name: load_benchmark(name) for name in benchmark_names()}
  own = [
    f"{name} {module.DEFAULTS[option]}"
    for name, module in modules.items()
    if option in module.DEFAULTS
  ]
  return ", ".join(own) or "0"


def parser() -> argparse.ArgumentParser:
  out = argparse.ArgumentParser(
    prog="python -m stepaudio_jax.evaluate",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add, names = out.add_argument, benchmark_names()
  add(
    "--checkpoint",
    required=True,
    metavar="DIR",
    help="a workdir or a step of it; DIR,DIR: reward models",
  )
  add(
    "--benchmark",
    required=True,
    nargs="+",
    choices=names,
    metavar="NAME",
    dest="benchmarks",
    help=f"one or more of: {', '.join(names)}",
  )
  add("--data", required=True, metavar="DIR", help="where the benchmarks' files lie")
  add("--out", metavar="DIR", help="of the results; else WORKDIR/evaluation/STEP")
  add("--cache", metavar="DIR", help="of encoder frames, to be shared; else OUT/cache")
  add("--limit", type=int, metavar="N", help="only the first N items")
  for name, (kind, what) in {
    "batch_size": (int, "items at a time"),
    "max_new_tokens": (int, "of a reply"),
    "temperature": (float, "0 takes the likeliest token"),
    "seed": (int, "of the draws"),
  }.items():
    add(f"--{name}", type=kind, metavar="N", help=f"{what}; else {_own(name)}")
  add("--samples", type=int, metavar="K", help="replies to each item: pass@k, majority")
  known = controls_lib.names()[1:]
  add("--controls", nargs="+", choices=known, help="ask again with other sound")
  add(
    "--budgets", type=int, nargs="+", metavar="N", help="close thoughts after N tokens"
  )
  add(
    "--run",
    nargs="+",
    metavar="DIR",
    dest="runs",
    help="reward_model: of policy gradients, proxy beside gold",
  )
  add("--rollouts", metavar="FILE", help="reward_model: the best of these replies")
  add("--verdicts", metavar="FILE", help="reward_model: a judge's, in both orders")
  add("--judge", metavar="WHO", help="rule, a checkpoint, or https://HOST/v1#MODEL")
  add("--judge_key", metavar="VARIABLE", help="of the environment, with the key")
  add(
    "--no-silence",
    action="store_false",
    default=None,
    dest="silence",
    help="leave out the control in silence",
  )
  return out


def main(argv: Sequence[str] | None = None) -> None:
  arguments = vars(parser().parse_args(argv))
  with errors.readable("evaluate"):
    processes.start()
    for summary in run(**arguments).values():
      print(page(summary))


if __name__ == "__main__":
  main()
