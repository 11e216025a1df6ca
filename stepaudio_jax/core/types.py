"""The arrays that travel between rooms, and the alphabet their names are spelt in.

Axes, one letter each, worn as a suffix by every array:

  B sequences (rows)        G completions per prompt   T text positions
  S key positions           V vocabulary               D decoder width
  H query heads             K KV heads                 h head width
  F FFN width               Z layers                   C reward dimensions / labels
  N samples (16 kHz)        L mel frames (100 Hz)      M mel bins
  U encoder frames (25 Hz)  A audio tokens (12.5 Hz)   E encoder width
  R recordings (clips of at most 25 s) in a row        1 a broadcast axis
  Q replies that share a prompt                        J raters of a comparison
  P packs: groups of rows that belong together
"""

import dataclasses
from typing import Any, TypeAlias

import jax

Array: TypeAlias = jax.Array
Params: TypeAlias = dict[str, Any]


def _pytree(cls):
  return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@_pytree
class Batch:
  """Dialogues as rows of tokens; several may be packed into one row.

  Attributes:
    token_BT: int32 ids; audio positions hold the patch id.
    segment_BT: int32, 0 in padding, 1, 2, … for the examples packed into the row.
    position_BT: int32, counted from 0 in each segment.
    loss_BT: bool, True where the token itself is to be predicted. The mask comes
      from the renderer, never from token ids.
    example_BT: int32 index into the host's list of example ids, −1 in padding.
    source_BT: int32 index of the mixture's data set, −1 in padding.
    frames_BRUE: frozen encoder frames of the row's clips, zero beyond their count.
    frame_count_BR: int32 valid encoder frames of each clip, 0 where there is none.
    audio_BT: int32 index into the row's flattened (R, A) audio tokens that replace
      the embedding at this position, −1 at text. A = (U + 1) // 2.
  """

  token_BT: Array
  segment_BT: Array
  position_BT: Array
  loss_BT: Array
  example_BT: Array
  source_BT: Array
  frames_BRUE: Array
  frame_count_BR: Array
  audio_BT: Array


@_pytree
class SpeechBatch:
  """Single clips with transcript and attributes, for encoder pre-alignment (0a).

  Attributes:
    mel_BLM: float32 log-mel, literal 0 beyond each clip's padded frames.
    sample_count_B: int32 samples at 16 kHz; every length of the model follows.
    transcript_BT: int32 symbols for CTC, 0 (blank) in padding.
    transcript_count_B: int32 symbols of each transcript.
    attribute_BC: int32 class of each attribute, −1 where it is unknown.
    example_B: int32 index into the host's list of example ids.
  """

  mel_BLM: Array
  sample_count_B: Array
  transcript_BT: Array
  transcript_count_B: Array
  attribute_BC: Array
  example_B: Array


@_pytree
class Rollout:
  """Sampled replies beside their prompts (same row order).

  Attributes:
    token_BT: int32 sampled ids, pad id after the end.
    logprob_BT: float32 log softmax(logits / temperature)[token], before truncation
      by top-k or top-p (training.md §3); 0 outside the mask.
    mask_BT: bool, True on sampled tokens, the stop token included; False on those that
      were put in their midst to close a thought.
    count_B: int32 tokens of the reply, sampled or not.
    truncated_B: bool, True where the limit came before a stop token.
  """

  token_BT: Array
  logprob_BT: Array
  mask_BT: Array
  count_B: Array
  truncated_B: Array


@_pytree
class Replies:
  """Replies to prompts, Q to each; the model reads a prompt once for all of them.

  Attributes:
    prompts: one segment a row, right-padded, [B, T of the prompts].
    token_BQT: int32 tokens that follow the prompt; pad id after the end.
    count_BQ: int32 tokens of each reply, 0 where there is none.
  """

  prompts: Batch
  token_BQT: Array
  count_BQ: Array


@_pytree
class PackedReplies:
  """Replies behind their prompts in rows without padding between them, many to a row.

  For replies of very different lengths. A prompt stands in a row once for all of its
  replies there (then a segment is a prompt or a reply, which sees its prompt's
  segment), or once for each of them (then a segment is a prompt and one reply).
  Positions of each reply go on from its prompt. Prompts are shared out to P packs, each
  with rows of its own, so that a device that holds a pack holds all that belongs
  together.

  Attributes:
    batch: every leaf begins with P.
    slot_PBQT: int32 place of each reply token among the pack's flattened rows; 0 where
      there is none.
    last_PBQ: int32 place of the last token of the reply's prompt, 0 without a reply.
    token_PBQT, count_PBQ: as in `Replies`, prompts shared out in their order.
    prefix_PBT: int32 another segment that a token sees whole, its prompt's; 0 is none.
      None (no array at all) where every reply has its own copy of the prompt.
  """

  batch: Batch
  slot_PBQT: Array
  last_PBQ: Array
  token_PBQT: Array
  count_PBQ: Array
  prefix_PBT: Array | None = None


@_pytree
class Comparisons:
  """Two replies to each prompt, and what raters said of them.

  Attributes:
    replies: `Replies`, or `PackedReplies` (then every leaf here begins with P), with
      Q = 4: the first reply's answer alone, as raters saw it; its turn
      with the thought; then the second reply's two. A reward is read at the last token.
    label_BJC: float32 choice of rater j, −3…+3, negative where the first reply is the
      better one; NaN where it is missing. C are the reward dimensions.
    score_B2JC: float32 marks of both replies by rater j, 1…5; NaN where missing.
    rater_BJ: int32 number of rater j, −1 where there is none; None (no array at all)
      where raters are not told apart.
    turned_BJ: bool, True where rater j saw the second reply first; None as above.
  """

  replies: Replies | PackedReplies
  label_BJC: Array
  score_B2JC: Array
  rater_BJ: Array | None = None
  turned_BJ: Array | None = None


@_pytree
class Contrasts:
  """Two replies to each prompt, of which raters chose the first.

  Attributes:
    replies: `Replies`, or `PackedReplies` (then every leaf here begins with P), with
      Q = 2: the turns as they are generated, the chosen one before the rejected one.
    spoken_BQT: bool, True on the tokens that a policy speaks: thought, answer and
      <|EOT|>, never what opens the turn; False where there is no comparison.
  """

  replies: Replies | PackedReplies
  spoken_BQT: Array


@_pytree
class Experience:
  """Sampled replies with their rewards: what a policy update reads.

  One row a reply here (B of the axis names below is prompts × G, replies to a prompt
  touch); `T` counts the tokens of the reply alone, so that T = 0 is its first token.

  Attributes:
    mask_BT: bool, True on sampled tokens, the stop token included.
    sampler_BT: float32 log-probabilities that the sampler reported.
    old_BT: float32, of the same tokens under the policy that began the step's replies,
      which with overlap is older than the one that is updated; computed like those of
      the update. 0 until then where an only update tells it (policy.policy_loss).
    reference_BT: float32, of the same tokens under the reference policy.
    reward_BC: float32 rewards of the whole reply by dimension; NaN where one is
      missing.
    weight_BC: float32 weight of each dimension; 0 where it is only logged, or is not of
      the stream that the reply belongs to.
    value_BT: float32 the critic's predictions before each token; 0 without a critic.
    advantage_BT: float32, 0 outside the mask; made by an algorithm.
    return_BT: float32 what the critic should have predicted.
  """

  mask_BT: Array
  sampler_BT: Array
  old_BT: Array
  reference_BT: Array
  reward_BC: Array
  weight_BC: Array
  value_BT: Array
  advantage_BT: Array
  return_BT: Array


@_pytree
class TrainState:
  """What a step reads and returns.

  Attributes:
    params: the trained part of the parameters.
    frozen: the rest: no gradient and no optimiser state.
    opt_state: of `params` alone.
    step: int32 scalar, updates done.
    rng: key data; each step folds its number in, so a resumed run draws the same.
  """

  params: Params
  frozen: Params
  opt_state: Any
  step: Array
  rng: Array


@_pytree
class Mean:
  """A mean still in two parts, so that micro-batches and hosts can add up."""

  total: Array
  count: Array

  def __add__(self, other: "Mean") -> "Mean":
    return Mean(self.total + other.total, self.count + other.count)
