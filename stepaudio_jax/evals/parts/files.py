"""Moved to core/files.py."""

from stepaudio_jax.core.files import aside

__all__ = ["aside"]
