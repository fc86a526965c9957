"""Log-probs of rollouts under a prompt, as the trainer needs them.

All rollouts of a problem, plain and guided, are trained under the one plain prompt, so a prompt runs once and
its rollouts attend to its key-value rows: P + G*R tokens instead of G*(P + R). That is exact, and gradients flow
through the shared rows. Logits are made for real tokens only, in chunks, and recomputed in the backward pass
where they would be large, so no float32 [N, T, V] tensor exists.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from guide_rl.policy import Policy, in_float32

Ids = Sequence[int]

LOGITS_AT_ONCE = 2**26
"""Largest number of float32 logits kept for the backward pass (256 MiB)."""
PASS_TOKENS = 256
"""What a pass of its own costs, in tokens: where padding would cost more, rows are not run together."""


@dataclass(frozen=True)
class Row:
    """One rollout under one prompt."""

    prompt_ids: Ids
    token_ids: Ids


@dataclass(frozen=True)
class TokenScores:
    """What a forward pass says of the rollouts' tokens; padded places hold 0."""

    logprobs_NT: Tensor
    """log pi(token) at the temperature, float32."""
    entropies_NT: Tensor | None
    """Entropy of the distribution that each token came from, in nats, where asked for."""
    mask_NT: Tensor
    """True on real tokens."""


def score_rows(
    policy: Policy, rows: Sequence[Row], *, temperature: float, entropy: bool = False, share_prompts: bool = True
) -> TokenScores:
    """Score every token of every row in one forward pass.

    Args:
        policy: the model; gradients flow unless the caller turned them off.
        rows: N rollouts, each under its prompt; equal prompts are run once where `share_prompts`.
        temperature: divides the logits.
        entropy: compute entropies too.
        share_prompts: False runs prompt and rollout as one row (needed with gradient checkpointing).

    Returns:
        [N, T] scores with T the longest rollout.
    """
    hidden_NTD = hidden_states(policy, rows, share_prompts=share_prompts)
    tokens_NT, mask_NT = _pad([row.token_ids for row in rows], policy.device, "right")
    values = _score_tokens(policy, hidden_NTD[mask_NT], tokens_NT[mask_NT], temperature, entropy)
    blank_NT = torch.zeros(mask_NT.shape, dtype=torch.float32, device=policy.device)
    scores = [blank_NT.masked_scatter(mask_NT, value) for value in values]
    return TokenScores(scores[0], scores[1] if entropy else None, mask_NT)


def hidden_states(policy: Policy, rows: Sequence[Row], *, share_prompts: bool = True) -> Tensor:
    """The states from which the head predicts each rollout token, [N, T, D]; padded places hold anything."""
    return (_hidden_shared if share_prompts else _hidden_whole)(policy, rows)


@dataclass(frozen=True)
class Scorer:
    """How a run scores rows: one place for the settings that never change in it."""

    temperature: float
    """The sampling temperature."""
    tokens_per_microbatch: int
    """Padded tokens per forward pass."""
    share_prompts: bool
    """Whether equal prompts are run once."""
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    """The precision's context."""

    def microbatches(self, rows: Sequence[Row]) -> list[list[int]]:
        """Positions of the rows of each micro-batch."""
        return plan_microbatches(rows, self.tokens_per_microbatch, share_prompts=self.share_prompts)

    def score(self, policy: Policy, rows: Sequence[Row], *, entropy: bool = False) -> TokenScores:
        """One forward pass over the rows of a micro-batch, with gradient where it is on."""
        with self.autocast():
            return score_rows(
                policy, rows, temperature=self.temperature, entropy=entropy, share_prompts=self.share_prompts
            )

    def hidden(self, policy: Policy, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """`hidden_states` of a micro-batch, and which of its tokens are real: [N, T, D] and [N, T]."""
        with self.autocast():
            hidden_NTD = hidden_states(policy, rows, share_prompts=self.share_prompts)
        return hidden_NTD, _pad([row.token_ids for row in rows], policy.device, "right")[1]

    def score_all(self, policy: Policy, rows: Sequence[Row]) -> list[Tensor]:
        """Log-probs of any number of rows, each [T] of its own length, without gradient."""
        scored: list[Tensor] = [torch.empty(0)] * len(rows)
        with torch.no_grad():
            for part in self.microbatches(rows):
                some = [rows[i] for i in part]
                for i, logprobs_T in zip(part, unpad(self.score(policy, some).logprobs_NT, some), strict=True):
                    scored[i] = logprobs_T
        return scored


def unpad(values_NT: Tensor, rows: Sequence[Row]) -> list[Tensor]:
    """The real tokens of each row, each [T] of its own length."""
    return [values_T[: len(row.token_ids)] for values_T, row in zip(values_NT, rows, strict=True)]


def padded(values: Sequence[Tensor | None], like_NT: Tensor) -> Tensor:
    """What `unpad` takes apart: rows of different lengths, [T] each -> the shape of `like_NT`, padded with 0, no gradient."""
    padded_NT = torch.zeros_like(like_NT, requires_grad=False)
    for n, value_T in enumerate(values):
        assert value_T is not None
        padded_NT[n, : len(value_T)] = value_T
    return padded_NT


def plan_microbatches(rows: Sequence[Row], tokens: int, *, share_prompts: bool = True) -> list[list[int]]:
    """Split rows into micro-batches of at most `tokens` padded tokens (a larger row stands alone).

    A micro-batch ends before it is full where its padding would cost more than a pass of its own. Two orders are
    planned, by rollout length and by prompt, and the cheaper one is taken.

    Returns:
        Lists of positions in `rows`, every position once.
    """
    lengths = [len(row.token_ids) for row in rows]
    by_length = sorted(range(len(rows)), key=lambda i: (lengths[i], i))
    longest: dict[tuple[int, ...], int] = {}
    for i, row in enumerate(rows):
        key = tuple(row.prompt_ids)
        longest[key] = max(longest.get(key, 0), lengths[i])
    by_prompt = sorted(by_length, key=lambda i: (longest[tuple(rows[i].prompt_ids)], tuple(rows[i].prompt_ids)))
    plans = [_cut(rows, order, tokens, share_prompts) for order in (by_length, by_prompt)]
    return min(
        plans,
        key=lambda plan: sum(PASS_TOKENS + _padded_tokens([rows[i] for i in part], share_prompts) for part in plan),
    )


def sharing_is_exact(policy: Policy, *, tolerance: float = 1e-4) -> bool:
    """Whether shared prompts give this architecture's own log-probs: checked on three short rows.

    Raises:
        ValueError: even whole rows differ from the model's own logits, so the output head is not understood.
    """
    vocabulary = int(policy.head.weight.shape[0])
    ids = [(7 * i + 3) % vocabulary for i in range(16)]
    rows = [Row(ids[:5], ids[5:9]), Row(ids[:5], ids[9:16]), Row(ids[:3], ids[3:5])]
    with torch.no_grad(), in_float32(policy.model):
        whole = score_rows(policy, rows, temperature=1.0, share_prompts=False)
        for n, row in enumerate(rows):
            all_ids = torch.tensor([[*row.prompt_ids, *row.token_ids]], device=policy.device)
            logits_TV = policy.causal(all_ids, use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1].float()
            own_T = logits_TV.log_softmax(-1).gather(-1, all_ids[0, len(row.prompt_ids) :, None])[:, 0]
            error = (own_T - whole.logprobs_NT[n, : len(row.token_ids)]).abs().max().item()
            if not error <= tolerance * max(1.0, own_T.abs().max().item()):
                raise ValueError(
                    f"{type(policy.causal).__name__}: log-probs from its output head differ from its own logits by "
                    f"{error:.2g}; the head scales or caps its logits in a way that is not supported"
                )
        try:
            shared = score_rows(policy, rows, temperature=1.0)
        except (TypeError, ValueError, AttributeError, IndexError, NotImplementedError):
            return False
        difference = (shared.logprobs_NT - whole.logprobs_NT).abs().max().item()
    return difference <= tolerance * max(1.0, whole.logprobs_NT.abs().max().item())


def _hidden_whole(policy: Policy, rows: Sequence[Row]) -> Tensor:
    """Hidden states before each rollout token, prompt and rollout in one row; [N, T, D]."""
    prompts_NP, prompt_mask_NP = _pad([row.prompt_ids for row in rows], policy.device, "left")
    tokens_NT, mask_NT = _pad([row.token_ids for row in rows], policy.device, "right")
    attention = torch.cat([prompt_mask_NP, mask_NT], dim=1).long()
    output = policy.backbone(
        input_ids=torch.cat([prompts_NP, tokens_NT], dim=1),
        attention_mask=attention,
        position_ids=(attention.cumsum(1) - 1).clamp_min(0),
        use_cache=False,
    )
    width = prompts_NP.shape[1]
    return output.last_hidden_state[:, width - 1 : -1]


def _hidden_shared(policy: Policy, rows: Sequence[Row]) -> Tensor:
    """Hidden states before each rollout token, each distinct prompt run once; [N, T, D]."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    prompts = list(dict.fromkeys(tuple(row.prompt_ids) for row in rows))
    place = {prompt: m for m, prompt in enumerate(prompts)}
    prompt_N = torch.tensor([place[tuple(row.prompt_ids)] for row in rows], device=policy.device)
    prompts_MP, prompt_mask_MP = _pad(prompts, policy.device, "left")
    attention_MP = prompt_mask_MP.long()
    cache = DynamicCache()
    prefix = policy.backbone(
        input_ids=prompts_MP,
        attention_mask=attention_MP,
        position_ids=(attention_MP.cumsum(1) - 1).clamp_min(0),
        past_key_values=cache,
        use_cache=True,
    )
    if prefix.past_key_values is not cache or not all(type(layer) is DynamicLayer for layer in cache.layers):
        raise NotImplementedError("this architecture keeps no plain key-value cache")
    first_N1D = prefix.last_hidden_state[prompt_N, -1:]
    tokens_NT, mask_NT = _pad([row.token_ids for row in rows], policy.device, "right")
    if tokens_NT.shape[1] == 1:
        return first_N1D
    cache.batch_select_indices(prompt_N)
    attention = torch.cat([attention_MP[prompt_N], mask_NT[:, :-1].long()], dim=1)
    output = policy.backbone(
        input_ids=tokens_NT[:, :-1],
        attention_mask=attention,
        position_ids=(attention.cumsum(1) - 1).clamp_min(0)[:, prompts_MP.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    )
    return torch.cat([first_N1D, output.last_hidden_state], dim=1)


def _score_tokens(
    policy: Policy, hidden_KD: Tensor, tokens_K: Tensor, temperature: float, entropy: bool
) -> tuple[Tensor, ...]:
    """Log-probs (and entropies) of K tokens from the hidden states before them, chunk by chunk."""
    softcap = getattr(policy.causal.config, "final_logit_softcapping", None)

    def score(hidden_cD: Tensor, tokens_c: Tensor) -> tuple[Tensor, ...]:
        logits_cV = policy.head(hidden_cD).float()
        if softcap is not None:
            logits_cV = torch.tanh(logits_cV / softcap) * softcap
        if temperature != 1.0:
            logits_cV = logits_cV / temperature
        normalizer_c = torch.logsumexp(logits_cV, dim=-1)
        logprobs_c = logits_cV.gather(-1, tokens_c[:, None])[:, 0] - normalizer_c
        if not entropy:
            return (logprobs_c,)
        probs_cV = torch.exp(logits_cV - normalizer_c[:, None])
        expected_c = (probs_cV * torch.where(probs_cV > 0, logits_cV, 0.0)).sum(-1)
        return logprobs_c, normalizer_c - expected_c

    size = max(1, LOGITS_AT_ONCE // int(policy.head.weight.shape[0]))
    chunks = list(zip(hidden_KD.split(size), tokens_K.split(size), strict=True))
    if len(chunks) == 1 or not torch.is_grad_enabled():
        parts = [score(*chunk) for chunk in chunks]
    else:
        parts = [checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks]
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def _pad(sequences: Sequence[Ids], device: torch.device, side: str) -> tuple[Tensor, Tensor]:
    """Sequences -> a padded [N, L] tensor (with 0, never attended to) and its mask."""
    tensors = [torch.tensor(ids, dtype=torch.long) for ids in sequences]
    padded = pad_sequence(tensors, batch_first=True, padding_value=0, padding_side=side)
    lengths_N1 = torch.tensor([len(ids) for ids in sequences])[:, None]
    columns_1L = torch.arange(padded.shape[1])[None]
    mask = columns_1L < lengths_N1 if side == "right" else columns_1L >= padded.shape[1] - lengths_N1
    return padded.to(device), mask.to(device)


def _padded_tokens(rows: Sequence[Row], share_prompts: bool) -> int:
    """How many tokens, padding included, one micro-batch of these rows runs."""
    prompts = {tuple(row.prompt_ids) for row in rows} if share_prompts else [row.prompt_ids for row in rows]
    longest_prompt, longest_rollout = max(map(len, prompts)), max(len(row.token_ids) for row in rows)
    return len(prompts) * longest_prompt + len(rows) * longest_rollout


def _cut(rows: Sequence[Row], order: Sequence[int], tokens: int, share_prompts: bool) -> list[list[int]]:
    """Cut an order of rows into runs of at most `tokens` padded tokens and `PASS_TOKENS` of padding."""
    plan: list[list[int]] = []
    prompts: set[tuple[int, ...]] = set()
    count = real = longest_prompt = longest_rollout = 0
    for i in order:
        prompt, length = tuple(rows[i].prompt_ids), len(rows[i].token_ids)
        new_prompt = not (share_prompts and prompt in prompts)
        p, r = max(longest_prompt, len(prompt)), max(longest_rollout, length)
        padded = (count + new_prompt) * p + (len(plan[-1]) + 1) * r if plan else 0
        if plan and padded <= min(tokens, real + new_prompt * len(prompt) + length + PASS_TOKENS):
            plan[-1].append(i)
        else:
            plan.append([i])
            prompts, count, real, new_prompt = set(), 0, 0, True
            p, r = len(prompt), length
        prompts.add(prompt)
        count += new_prompt
        real += new_prompt * len(prompt) + length
        longest_prompt, longest_rollout = p, r
    return plan
