"""Floor 1: audio files, speech synthesis and log-mel features (host side)."""
