"""Ablation of reward dimensions: from saved replies, and by training runs in pairs."""
