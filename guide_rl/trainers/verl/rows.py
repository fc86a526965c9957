"""Rows -> the batches that verl's workers take, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guide_rl.logprobs import Row

IDLE_TOKENS = 128
"""Length of a padding row, as verl's own have it."""


def idle_row(token_id: int) -> Row:
    """A row that carries no weight, where every rank needs as many rows as the others."""
    return Row((token_id,) * (IDLE_TOKENS - 1), (token_id,))


def batch_of(rows: Sequence[Row], columns: Mapping[str, Sequence[Tensor] | Tensor], settings: Mapping[str, Any]) -> Any:
    """The rows as a TensorDict of jagged tensors.

    Args:
        rows: prompt and rollout of each.
        columns: more of each row: a list of [T] tensors, one a rollout's token, or a tensor [N].
        settings: what the workers are told besides.
    """
    from verl.utils.tensordict_utils import get_tensordict

    prompts = [torch.tensor(row.prompt_ids) for row in rows]
    responses = [torch.tensor(row.token_ids) for row in rows]
    whole = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    tensors: dict[str, Any] = {
        "prompts": _jagged(prompts),
        "responses": _jagged(responses),
        "input_ids": _jagged(whole),
        "position_ids": _jagged([torch.arange(len(ids)) for ids in whole]),
        "response_mask": _jagged([torch.ones_like(ids) for ids in responses]),
        "loss_mask": _jagged([torch.ones_like(ids) for ids in responses]),
    }
    tensors |= {name: each if isinstance(each, Tensor) else _jagged(each) for name, each in columns.items()}
    return get_tensordict(tensors, dict(settings))


def of_rollouts(output: Any, name: str, batch: Any) -> list[Tensor]:
    """What the workers say of every position, cut to the rollouts' tokens: [T] a row, float32."""
    from verl.workers.utils.padding import response_from_nested

    return [each.float() for each in response_from_nested(output[name], batch["response_mask"]).unbind()]


def layout(batches: Sequence[Sequence[Row]], ranks: int) -> tuple[list[int | None], int]:
    """The order in which mini-batches are cut among the ranks: each rank as many rows of each, of nearly as many tokens.

    Every mini-batch keeps its own rows and becomes as long as the longest, a multiple of the ranks.

    Returns:
        Which row (counted over all mini-batches) comes next, None for an idle one; and the rows of a mini-batch.
    """
    from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

    size = -(-max(map(len, batches)) // ranks) * ranks
    of_rank: list[list[int | None]] = [[] for _ in range(ranks)]
    first = 0
    for rows in batches:
        places: list[int | None] = [*range(first, first + len(rows)), *[None] * (size - len(rows))]
        lengths = [len(row.prompt_ids) + len(row.token_ids) for row in rows] + [IDLE_TOKENS] * (size - len(rows))
        parts = get_seqlen_balanced_partitions(lengths, k_partitions=ranks, equal_size=True)
        for rank, part in enumerate(parts):
            of_rank[rank] += [places[i] for i in part]
        first += len(rows)
    return [place for rank in of_rank for place in rank], size


def _jagged(tensors: Sequence[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(list(tensors), layout=torch.jagged)
