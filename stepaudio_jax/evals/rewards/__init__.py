"""Floor 3: what is told of a reward model; no benchmarks, evals/reward_model.py is."""
