"""What rule rewards share: reading an answer out of a reply."""
