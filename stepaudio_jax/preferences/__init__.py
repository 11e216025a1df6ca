"""Preference files: checked, put together, split, looked at, made of others.

Each command of `python -m stepaudio_jax.preferences` is a file here with `flags` and
`run`; the statistics lie in core/agreement.py and data/panels.py.
"""
