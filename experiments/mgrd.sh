#!/usr/bin/env bash
# Modality-grounded reasoning distillation (Step-Audio-R1, section 4.2), in iterations:
# the model answers questions about sound K times; of its replies those are kept that
# argue from the sound, coherently and to the right answer; it learns from them beside
# text reasoning (SFT); RLVR follows, on prompts of which it knows neither all nor none.
#
#   experiments/mgrd.sh --start runs/quickstart/sft --world runs/quickstart/world \
#     --workdir runs/mgrd [--iterations 2] [--size tiny] [--judge WHO] [smoke]
#
# Stages that are done are not done again; the same command goes on where it stopped.
# `smoke` is minutes: few questions, few steps. Each iteration leaves workdir/T with
# questions.jsonl, rollouts.jsonl, kept.jsonl, evidence.jsonl, counts.json, sft/, rlvr/.
# From the environment: K replies to each of COUNT questions, KEEP bounds of right ones
# of a prompt for RLVR, TOKENS of a reply, TEMPERATURE, TEXT share of RLVR's prompts.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,17s/^# \{0,1\}//p' experiments/mgrd.sh; }
die() { echo "mgrd: $*" >&2; exit 2; }

start="" world="" workdir="" iterations=2 size=tiny judge="" smoke=""
while (($#)); do
  case $1 in
    --start | --world | --workdir | --iterations | --size | --judge)
      (($# > 1)) || die "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    smoke) smoke=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown argument '$1'; see --help" ;;
  esac
done
[[ $start && $world && $workdir ]] || die "--start, --world and --workdir are needed"
[[ $iterations =~ ^[1-9][0-9]*$ ]] || die "--iterations '$iterations' is no number above 0"
[[ $start == *://* || -e $start ]] || die "there is no start '$start'"
for file in prompts-train prompts-heldout text-train; do
  [[ -e $world/$file.jsonl ]] || die "there is no $world/$file.jsonl"
done

if [[ $smoke ]]; then
  : "${K:=4}" "${COUNT:=32}" "${KEEP:=0..4}"
else
  : "${K:=8}" "${COUNT:=400}" "${KEEP:=3..6}"
fi
: "${TOKENS:=48}" "${TEMPERATURE:=1.0}" "${TEXT:=0.25}"
flag=${smoke:+,smoke}
mkdir -p "$workdir/done"
world=$(cd "$world" && pwd)
workdir=$(cd "$workdir" && pwd)
# What all iterations share: programs, and what the frozen encoder heard.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$workdir/xla_cache}
cache=$workdir/cache

settings="start=$start world=$world size=$size judge=$judge smoke=$smoke K=$K COUNT=$COUNT"
settings+=" KEEP=$KEEP TOKENS=$TOKENS TEMPERATURE=$TEMPERATURE TEXT=$TEXT"
if [[ -e $workdir/settings ]]; then
  [[ $(<"$workdir/settings") == "$settings" ]] ||
    die "$workdir was begun with other settings: $(<"$workdir/settings")"
fi
echo "$settings" >"$workdir/settings"

stage() { # NAME COMMAND…: unless it was done before
  local mark=$workdir/done/$1
  if [[ -e $mark ]]; then
    echo "── $1: done before"
    return
  fi
  echo "── $1"
  local begun=$SECONDS
  "${@:2}"
  echo "$((SECONDS - begun)) s" >"$mark"
}

policy=$start
for ((t = 1; t <= iterations; t++)); do
  here=$workdir/$t
  mkdir -p "$here"
  stage "$t-questions" python -m experiments.mgrd questions \
    --dialogues "$world/prompts-train.jsonl" --out "$here/questions.jsonl" \
    --count "$COUNT" --skip $(((t - 1) * COUNT))
  stage "$t-heldout" python -m experiments.mgrd questions \
    --dialogues "$world/prompts-heldout.jsonl" --out "$here/prompts-heldout.jsonl"
  stage "$t-sample" python -m stepaudio_jax.generate --checkpoint "$policy" \
    --jsonl "$here/questions.jsonl" --out "$here/rollouts.jsonl" --cache "$cache" \
    --samples "$K" --keep "$KEEP" --max_new_tokens "$TOKENS" \
    --temperature "$TEMPERATURE" --seed "$t" --batch_size 32
  stage "$t-filter" python -m experiments.mgrd filter --out "$here" \
    --rollouts "$here/rollouts.jsonl" --dialogues "$here/questions.jsonl" \
    ${judge:+--judge "$judge"}
  stage "$t-sft" python -m stepaudio_jax.train --workdir "$here/sft" \
    --config "configs/mgrd.py:size=$size$flag" --config.init="$policy" \
    --config.seed="$t" --config.data.cache="$cache" \
    --config.data.options.kept.path="$here/kept.jsonl" \
    --config.data.options.written.path="$world/text-train.jsonl"
  stage "$t-rlvr" python -m stepaudio_jax.train_rl --workdir "$here/rlvr" \
    --config "configs/rlvr.py:size=$size,text=$TEXT$flag" \
    --config.init="$here/sft" --config.seed="$t" --config.data.cache="$cache" \
    --config.data.options.prompts.path="$here/prompts-{split}.jsonl" \
    --config.data.options.written.path="$world/text-train.jsonl"
  policy=$here/rlvr
done
echo "── after $iterations iterations: $policy"
