"""Moved to core/progress.py."""

from stepaudio_jax.core.progress import bar

__all__ = ["bar"]
