"""Requests -> Rollouts with log-probs: `transformers` samples in this process from the model that is being trained."""
