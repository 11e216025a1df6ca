"""Floor 3: one file per benchmark; what they share lies in parts/.

A benchmark file defines `DEFAULTS` (options), `evaluate` (model, data → summary,
items), `page` (summary → Markdown) and `plot` (summary → figure).
"""
