"""Floor 3: one file per benchmark; what they share lies in parts/.

A benchmark file defines `Options` and their `DEFAULTS`, `load` (checkpoint → model),
`evaluate` (model, data → summary, items), `page` (summary → Markdown) and `plot`
(summary → figure).
"""
