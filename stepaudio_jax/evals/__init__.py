"""Floor 3: one file per benchmark; what they share lies in parts/.

A benchmark whose questions are files of somebody else's defines

  COLUMN      of the report's table, or None
  DEFAULTS    {"temperature", "max_new_tokens", "batch_size"}
  JUDGES      ("rule",), ("judge",) or both, the default first
  PROMPT      a Template, where the model is asked in words of ours; it may be absent
  METRICS     {name: Score → number}, the one of the table first; it may be absent: then
              {"accuracy": the score's value}
  read(folder) → [Item]
              all problems of the files in one ValueError, before anything is asked
  questions(item, answer) → [Question]
              for the judge; absent where rules are enough
  score(item, answer, verdicts) → Score
              our rule. answer: the text behind the thought, None where that never
              closed; verdicts: the judge's raw replies, None where it was not asked
  official(items, answers) → [number or None]
              the published scorer's rule, in the order of the files; None: it leaves
              the item out. Absent where no scorer is published

and parts/suite.py asks and sums up. One that goes its own way (world, interaction,
reward_model) defines `Options` and their `DEFAULTS`, `load` (checkpoint → model),
`evaluate` (model, data → summary, items), `page` (summary → Markdown) and `plot`
(summary → figure), and maybe `plots` (summary → {name: what draws a further one}). With
JUDGES its `evaluate` takes `judge` too.
"""
