"""Floor 1: tokenizers and the rendering of dialogues to tokens."""
