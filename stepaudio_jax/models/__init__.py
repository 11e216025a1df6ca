"""Floor 1: pure linen modules; nothing above this folder knows linen."""
