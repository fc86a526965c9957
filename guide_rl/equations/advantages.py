"""Advantages: group-relative ones (paper, equation 3), PSR and NSR, and a critic's (algorithm 3).

Plain and guided rollouts of a problem form one group. Departures from the textbook: the standard deviation
is the sample one (n - 1), and a group of equal rewards gives exactly 0 instead of rounding noise over eps.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def joint_baseline(rewards_G: Tensor, guided_G: Tensor) -> Tensor:
    """Mean of the whole group, plain and guided (the paper)."""
    return rewards_G.mean()


def plain_baseline(rewards_G: Tensor, guided_G: Tensor) -> Tensor:
    """Mean of the plain rollouts, so that guided failures of a group without plain success are not pushed down."""
    if guided_G.all():
        raise ValueError("baseline plain needs at least one plain rollout in every group; set baseline to joint")
    return rewards_G[~guided_G].mean()


def leave_one_out_baseline(rewards_G: Tensor, guided_G: Tensor) -> Tensor:
    """For each rollout, the mean of all the others in its group (RLOO); nan in a group of one."""
    return (rewards_G.sum() - rewards_G) / (rewards_G.numel() - 1)


BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "joint": joint_baseline,
    "plain": plain_baseline,
    "leave_one_out": leave_one_out_baseline,
}
"""What is subtracted from the rewards: (rewards_G, guided_G) -> a scalar or one number per rollout."""


def group_advantages(
    rewards_G: Tensor, guided_G: Tensor, *, baseline: str = "joint", normalize_std: bool = True, eps: float = 1e-6
) -> Tensor:
    """How much better each rollout of one group is than the baseline.

    A = (r - b) / (std + eps), with std the sample standard deviation of the whole group whatever the baseline;
    A = r - b without `normalize_std` (paper, equation 3). Equal rewards, and a group of one, give exactly 0.

    Shapes: rewards_G [G], guided_G [G] bool -> [G]. Computed in float64, returned in the rewards' dtype
    (integer and boolean rewards: the default dtype). Raises ValueError for a reward that is not finite, for
    shapes that differ, and for baseline plain in a group without plain rollouts.
    """
    if rewards_G.dim() != 1 or rewards_G.shape != guided_G.shape or rewards_G.numel() == 0:
        raise ValueError(
            "rewards_G and guided_G must be 1-D, not empty and of one length, "
            f"not of shapes {list(rewards_G.shape)} and {list(guided_G.shape)}"
        )
    if not torch.isfinite(rewards_G).all():
        raise ValueError(f"rewards_G holds a reward that is not finite: {rewards_G.tolist()}; correct the grader")
    dtype = rewards_G.dtype if rewards_G.is_floating_point() else torch.get_default_dtype()
    rewards = rewards_G.double()
    advantages = rewards - BASELINES[baseline](rewards, guided_G)
    if (rewards == rewards[0]).all():
        return torch.zeros_like(rewards, dtype=dtype)
    if normalize_std:
        advantages = advantages / (rewards.std(correction=1) + eps)
    return advantages.to(dtype)


def sample_reinforcement(correct_G: Tensor, *, correct_weight: float, incorrect_weight: float) -> Tensor:
    """PSR, NSR and W-REINFORCE (arXiv 2506.01347): A = correct_weight where correct, -incorrect_weight where not.

    PSR is (1, 0), NSR (0, 1), W-REINFORCE (lambda, 1). There is no baseline, so uniform groups teach, too. The caller
    leaves rollouts of weight 0 out of the loss and its normaliser, as the authors' code does.

    Shapes: correct_G [G] bool -> [G] float64.
    """
    right, wrong = torch.tensor([correct_weight, -incorrect_weight], dtype=torch.float64)
    return torch.where(correct_G, right, wrong)


def gae(reward: float, values_T: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimation over the tokens of one rollout whose reward comes with its last token.

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = sum_l (gamma lam)^l delta_{t+l} (arXiv 1506.02438, equation 16); r is 0 but
    for the last token, and V is 0 after it. V_t is the value before token t, so returns are A_t + V_t.

    Shapes: values_T [T], T >= 1 -> [T] in the values' dtype, computed in float64, without gradient.
    """
    values = values_T.detach().double().tolist()
    advantages, later, following = [0.0] * len(values), 0.0, 0.0
    for t in reversed(range(len(values))):
        now = reward if t == len(values) - 1 else 0.0
        later = now + gamma * following - values[t] + gamma * lam * later
        advantages[t], following = later, values[t]
    return torch.tensor(advantages, dtype=torch.float64).to(values_T)


def whiten(advantages: list[Tensor], eps: float = 1e-8) -> list[Tensor]:
    """Shift and scale the advantages of all tokens of a batch, plain and guided together, to mean 0 and variance 1.

    (A - mean) / (std + eps) with the sample standard deviation; a single token, or equal ones, give 0.
    Shapes: a list of [T] -> the same shapes.
    """
    flat = torch.cat(advantages).double()
    std = flat.std(correction=1) if flat.numel() > 1 else torch.zeros((), dtype=torch.float64)
    return [((advantages_T.double() - flat.mean()) / (std + eps)).to(advantages_T) for advantages_T in advantages]
