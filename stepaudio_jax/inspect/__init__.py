"""The items of a benchmark on one page, with their sound: errors are found by looking.

`command.run` is what `python -m stepaudio_jax.inspect` calls.
"""
