"""Guide: reinforcement learning of reasoning models with guidance on failure.

Guide-GRPO of "Adaptive Guidance Accelerates Reinforcement Learning of Reasoning Models"
(arXiv 2506.13923). The public names are those listed here; importing them does not import torch.
"""

from guide_rl.types import Grade, Group, Problem, Request, Rollout

__version__ = "0.1.0"

__all__ = ["Grade", "Group", "Problem", "Request", "Rollout", "__version__"]
