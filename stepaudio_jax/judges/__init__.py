"""Floor 2: judges, who read a question about a reply and answer with a text."""
