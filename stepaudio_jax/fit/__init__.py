"""A recipe's programs compiled ahead of time for a slice of TPUs, and priced.

`command.run` is what `python -m stepaudio_jax.fit` calls.
"""
