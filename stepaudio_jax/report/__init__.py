"""Any number of checkpoints beside the published table: JSON, Markdown, HTML.

`command.run` is what `python -m stepaudio_jax.report` calls.
"""
