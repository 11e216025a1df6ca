"""The synthetic world: speech plan, gold listener and simulated raters."""
