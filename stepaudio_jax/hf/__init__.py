"""Floor 2: Hugging Face checkpoints, read and written by one table."""
