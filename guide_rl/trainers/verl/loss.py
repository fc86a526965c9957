"""The losses that verl's workers run: `equations.losses` on one of their micro-batches.

Weights are worked out over a whole mini-batch in the driver (`trainers.minibatches`), so the losses of micro-batches and ranks
add up to the local engine's, whatever the split; verl averages gradients over the ranks, which `dp_size` undoes.
"""

from typing import Any

import torch
from torch import Tensor

from guide_rl.equations.losses import policy_loss, value_loss_NT, weighted_sum
from guide_rl.equations.ratios import Logprobs

Metrics = dict[str, Any]


def actor_loss(
    model_output: dict[str, Any], data: Any, dp_group: Any = None, *, settings: dict[str, Any]
) -> tuple[Tensor, Metrics]:
    """`equations.losses.policy_loss` of the rows of a micro-batch, every row under its plain prompt.

    Args:
        model_output: log_probs, and entropy where the settings need it: jagged, prompt and rollout long.
        data: prompts, responses, response_mask, old_log_probs, advantages (and old_plain_log_probs, ref_log_prob where needed),
            jagged; guided bool [N] and weights float64 [N]; maybe asked int64 [N]; dp_size.
        dp_group: not used.
        settings: the fields of `LossConfig` that `policy_loss` takes.

    Returns:
        The loss times the number of ranks, and sums over tokens; rows of weight 0 are in neither. Where there is `asked`:
        also `log_probs`, a list of (asked, float32 array [T]) of the rows where it is not 0.
    """
    from verl.workers.utils.padding import no_padding_2_padding

    new_NT = no_padding_2_padding(model_output["log_probs"], data)
    entropies_NT = None
    if settings["entropy_coef"] > 0:
        entropies_NT = no_padding_2_padding(model_output["entropy"], data)
    loss, sums = policy_loss(
        Logprobs(new_NT, _padded(data, "old_log_probs"), _if_there(data, "old_plain_log_probs")),
        _padded(data, "advantages"),
        data["guided"].bool(),
        _weighing_NT(data),
        data["weights"],
        ref_NT=_if_there(data, "ref_log_prob"),
        entropies_NT=entropies_NT,
        **settings,
    )
    names = ("clipped", "clippable", "kl", "kl_tokens")
    metrics: Metrics = {f"sum/{name}": float(getattr(sums, name)) for name in names}
    if "asked" in data:
        rows = zip(data["asked"].tolist(), data["responses"].offsets().diff().tolist(), strict=True)
        array_NT = new_NT.detach().float().cpu().numpy()
        metrics["log_probs"] = [(asked, array_NT[n, :length]) for n, (asked, length) in enumerate(rows) if asked]
    return loss * data["dp_size"], metrics


def critic_loss(
    model_output: dict[str, Any], data: Any, dp_group: Any = None, *, clip: float | None
) -> tuple[Tensor, Metrics]:
    """`equations.losses.value_loss_NT`, summed over the tokens of a micro-batch with the rows' weights.

    Args:
        model_output: values, jagged: of every position, the one before a token is that token's.
        data: as in `actor_loss`, with values and returns, jagged; weights are 1 / (tokens of the mini-batch), or 0.
        dp_group: not used.
        clip: the recipe's critic.clip.
    """
    from verl.workers.utils.padding import no_padding_2_padding

    new_NT = no_padding_2_padding(model_output["values"], data)
    tensors = (new_NT, _padded(data, "values"), _padded(data, "returns"))
    mask_NT = _weighing_NT(data)
    new_NT, old_NT, returns_NT = (torch.where(mask_NT, each, 0.0) for each in tensors)
    losses_NT, free_NT = (value_loss_NT(new_NT, old_NT, returns_NT, each) for each in (clip, None))
    loss = weighted_sum(losses_NT, mask_NT, data["weights"])
    clipped = weighted_sum((losses_NT > free_NT).to(new_NT.dtype), mask_NT, data["weights"])
    return loss * data["dp_size"], {"sum/clipped": float(clipped)}


def _weighing_NT(data: Any) -> Tensor:
    """Which tokens are real and of a row that carries weight: nothing is read of padding rows, not even into metrics."""
    return _padded(data, "response_mask").bool() & (data["weights"] != 0)[:, None]


def _padded(data: Any, name: str) -> Tensor:
    """A jagged field as [N, T], padded with 0."""
    padded_NT: Tensor = data[name].to_padded_tensor(0)
    return padded_NT


def _if_there(data: Any, name: str) -> Tensor | None:
    """The same of a field that may be missing."""
    return _padded(data, name) if name in data else None
