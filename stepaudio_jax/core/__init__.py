"""Floor 0: the types, tree and mask arithmetic that every other room may use."""
