"""Audio reasoning models that people like to talk to: training, RL and evaluation."""

__version__ = "0.1.0"
