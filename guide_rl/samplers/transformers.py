"""Sample rollouts in this process from the Hugging Face model that is being trained.

A stream: rows that finish leave the batch and waiting requests take their places. A prompt that several requests
share is run once. Which request enters when depends on tokens only, never on the clock.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guide_rl.policy import explain_out_of_memory
from guide_rl.samplers.causal_lm import CausalLM, Ids
from guide_rl.samplers.kv_cache import RowCache
from guide_rl.samplers.rollout_text import RolloutText
from guide_rl.samplers.token_choice import Choice, choose, request_uniforms
from guide_rl.types import Finish, Request, Rollout

PREFILL_TOKENS = 16384
"""Padded prompt tokens per forward pass (a longer prompt runs alone)."""
ADMISSION_SHARE = 8
"""Requests enter once this part of the places is free, or all that wait fit: each admission costs a forward pass."""


@dataclass(frozen=True)
class SamplerProgress:
    """How far a sampler is."""

    tokens: int
    """Tokens sampled since it was made."""
    active: int
    """Rollouts being decoded."""
    waiting: int
    """Requests that wait for a place."""


@dataclass(frozen=True)
class _Row:
    """A request that is being decoded."""

    request: Request
    slot: int
    """Its line in the buffers, which stays while rows move."""
    born: int
    """Decode steps taken before it entered."""
    tail: deque[int]
    """Its newest tokens, where stop strings are looked for."""


class TransformersSampler:
    """A `types.Sampler` over a causal language model that shares its weights with the trainer.

    Sampling runs in eval mode, without gradients, under the caller's autocast; the model is left as it was. Weights
    must not change while rollouts are being decoded.

    Args:
        model: a transformers causal LM with a key-value cache in every layer, maybe wrapped by peft.
        tokenizer: decodes rollouts.
        temperature: divides the logits; 0 means greedy, which reports log-probs at temperature 1.
        max_tokens: longest rollout.
        stop: strings that end a rollout.
        batch_size: rows decoded at once.
        top_p: nucleus sampling (evaluation only: log-probs and entropy stay those of the full distribution).
        top_k: sample among the likeliest only; 0 means all (evaluation only, likewise).
        eos_token_ids: tokens that end a rollout; None takes those of the generation config and of the tokenizer.

    Raises:
        ValueError: a setting is out of range, or the model cannot be sampled this way (the message says what can).
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        temperature: float,
        max_tokens: int,
        stop: Sequence[str] = (),
        batch_size: int = 128,
        top_p: float = 1.0,
        top_k: int = 0,
        eos_token_ids: Iterable[int] | None = None,
    ) -> None:
        _check_settings(temperature, max_tokens, stop, batch_size, top_p, top_k)
        self._lm = CausalLM(model)
        eos = self._lm.eos_token_ids | {tokenizer.eos_token_id} if eos_token_ids is None else set(eos_token_ids)
        self._eos = torch.tensor(sorted(eos - {None}), dtype=torch.long, device=self._lm.device)
        if not len(self._eos):
            raise ValueError("neither generation config nor tokenizer names an EOS token; pass eos_token_ids")
        self._text = RolloutText(tokenizer, eos_token_ids=eos, stop=stop)
        self._temperature, self._top_p, self._top_k = temperature, top_p, top_k
        self._max_tokens, self._batch_size = max_tokens, batch_size
        self._waiting: deque[Request] = deque()
        self._rows: list[_Row] = []
        self._cache = RowCache()
        self._steps = self._sampled = 0
        self._free_slots = list(range(batch_size))
        self._slots_N = self._lengths_N = self._newest_N = torch.empty(0, dtype=torch.long, device=self._lm.device)
        self._tokens_ST, self._logprobs_ST, self._uniforms_ST = (
            torch.zeros(batch_size, max_tokens, dtype=dtype, device=self._lm.device)
            for dtype in (torch.long, torch.float32, torch.float64)
        )
        self._entropies_S = torch.zeros(batch_size, dtype=torch.float64, device=self._lm.device)

    @property
    def progress(self) -> SamplerProgress:
        """Tokens sampled so far, rollouts being decoded, requests waiting."""
        return SamplerProgress(self._sampled, len(self._rows), len(self._waiting))

    def submit(self, requests: Sequence[Request]) -> None:
        """Add requests; they take free places at the next admission point.

        Raises:
            ValueError: a prompt is empty, holds unknown token ids, or leaves no room for max_tokens; nothing was added.
        """
        for prompt in {request.prompt_ids for request in requests}:
            self._lm.check_prompt(prompt, self._max_tokens)
        self._waiting.extend(requests)

    def poll(self) -> list[Rollout]:
        """Decode until at least one rollout has finished and return all that have; [] when idle.

        Raises:
            FloatingPointError: a logit is NaN, or none is finite.
            MemoryError: out of memory; names the settings to lower.
        """
        with self._lm.sampling(), explain_out_of_memory("sampling.batch_size or sampling.max_tokens"):
            while self._rows or self._waiting:
                if finished := self._step():
                    return finished
        return []

    # ------------------------------------------------------------------ one decode step

    def _step(self) -> list[Rollout]:
        """One more token for every row, and the first token for those that enter; the rollouts that this ends."""
        logits = [self._lm.decode(self._newest_N, self._cache)] if self._rows else []
        if self._admission_due():
            logits += self._admit()
        where = (self._slots_N, self._lengths_N)
        choice = choose(
            torch.cat(logits),
            self._uniforms_ST[where] if self._temperature else None,
            temperature=self._temperature,
            top_p=self._top_p,
            top_k=self._top_k,
        )
        self._tokens_ST[where] = self._newest_N = choice.tokens_N
        self._logprobs_ST[where] = choice.logprobs_N
        self._entropies_S[self._slots_N] += choice.entropies_N.double()
        self._lengths_N = self._lengths_N + 1
        self._steps += 1
        self._sampled += len(self._rows)
        ended = self._ended(choice)
        return self._retire(ended) if ended else []

    def _ended(self, choice: Choice) -> dict[int, Finish]:
        """Which rows this step ends, and why; waits for the device once.

        Raises:
            FloatingPointError: a logit is NaN, or none is finite.
        """
        eos_N = torch.isin(choice.tokens_N, self._eos)
        last_N = self._lengths_N == self._max_tokens
        state = torch.stack((choice.tokens_N, eos_N.long(), last_N.long(), choice.entropies_N.isnan().long()))
        ended: dict[int, Finish] = {}
        for n, (row, token, eos, last, broken) in enumerate(zip(self._rows, *state.tolist(), strict=True)):
            if broken:
                raise FloatingPointError(
                    f"the logits of token {self._steps - row.born} of a rollout of problem {row.request.problem_id!r} "
                    "are NaN or infinite: training diverged (lower optimizer.learning_rate) or model.dtype overflows"
                )
            if eos:
                ended[n] = "eos"
            elif self._completes_stop(row, token):
                ended[n] = "stop"
            elif last:
                ended[n] = "length"
        return ended

    def _completes_stop(self, row: _Row, token: int) -> bool:
        """Whether this token completes a stop string."""
        if not self._text.stop:
            return False
        row.tail.append(token)
        return self._text.ends_in_stop(row.tail)

    # ------------------------------------------------------------------ rows come and go

    def _admission_due(self) -> bool:
        """Whether waiting requests enter now."""
        wanted = min(len(self._waiting), max(1, self._batch_size // ADMISSION_SHARE))
        return bool(self._waiting) and self._batch_size - len(self._rows) >= wanted

    def _admit(self) -> list[Tensor]:
        """Let waiting requests take the free places, each distinct prompt run once; logits of their first tokens."""
        count = min(len(self._waiting), self._batch_size - len(self._rows))
        by_prompt: defaultdict[Ids, list[Request]] = defaultdict(list)
        for request in (self._waiting.popleft() for _ in range(count)):
            by_prompt[request.prompt_ids].append(request)
        logits = []
        for prompts_U in _batches(sorted(by_prompt, key=len, reverse=True)):
            logits_UV, prefilled = self._lm.prefill(prompts_U)
            source_N = [u for u, prompt in enumerate(prompts_U) for _ in by_prompt[prompt]]
            self._cache.append(prefilled, [len(prompt) for prompt in prompts_U], source_N)
            logits.append(logits_UV[source_N])
            self._enter([request for prompt in prompts_U for request in by_prompt[prompt]])
        return logits

    def _enter(self, requests: Sequence[Request]) -> None:
        """Give new rows their lines in the buffers."""
        slots = [self._free_slots.pop() for _ in requests]
        for request, slot in zip(requests, slots, strict=True):
            self._rows.append(_Row(request, slot, self._steps, deque(maxlen=self._text.tail)))
        slots_N = torch.tensor(slots, device=self._lm.device)
        self._slots_N = torch.cat((self._slots_N, slots_N))
        self._lengths_N = torch.cat((self._lengths_N, torch.zeros_like(slots_N)))
        self._entropies_S[slots_N] = 0.0
        if self._temperature:
            uniforms_NT = torch.stack([request_uniforms(request, self._max_tokens) for request in requests])
            self._uniforms_ST[slots_N] = uniforms_NT.to(self._lm.device)

    def _retire(self, ended: dict[int, Finish]) -> list[Rollout]:
        """Take ended rows out of the batch and make rollouts of them, in the order of their entry."""
        rows = sorted((self._rows[n] for n in ended), key=lambda row: row.born)
        finishes = {self._rows[n].slot: finish for n, finish in ended.items()}
        rollouts = self._rollouts(rows, finishes)
        self._free_slots += [row.slot for row in rows]
        if len(ended) == len(self._rows) and not self._waiting:
            self._cache = RowCache()
            order: list[int] = []
        else:
            order = self._cache.release(list(ended))
        order_N = torch.tensor(order, dtype=torch.long, device=self._lm.device)
        self._rows = [self._rows[n] for n in order]
        self._slots_N, self._lengths_N, self._newest_N = (
            values_N[order_N] for values_N in (self._slots_N, self._lengths_N, self._newest_N)
        )
        return rollouts

    def _rollouts(self, rows: Sequence[_Row], finishes: dict[int, Finish]) -> list[Rollout]:
        """The finished rows as rollouts."""
        slots = [row.slot for row in rows]
        longest = max(self._steps - row.born for row in rows)
        tokens, logprobs, entropies = (
            values.tolist()
            for values in (
                self._tokens_ST[slots, :longest],
                self._logprobs_ST[slots, :longest],
                self._entropies_S[slots],
            )
        )
        rollouts = []
        for n, row in enumerate(rows):
            count, finish = self._steps - row.born, finishes[row.slot]
            rollouts.append(
                Rollout(
                    problem_id=row.request.problem_id,
                    index=row.request.index,
                    guided=row.request.guided,
                    prompt_ids=row.request.prompt_ids,
                    token_ids=tuple(tokens[n][:count]),
                    logprobs=tuple(logprobs[n][:count]),
                    text=self._text.final(tokens[n][:count], stopped=finish == "stop"),
                    finish=finish,
                    entropy=entropies[n] / count,
                )
            )
        return rollouts


def _batches(prompts: Sequence[Ids]) -> Iterator[Sequence[Ids]]:
    """Cut prompts, longest first, into batches of at most PREFILL_TOKENS padded tokens."""
    start = 0
    while start < len(prompts):
        size = max(1, PREFILL_TOKENS // len(prompts[start]))
        yield prompts[start : start + size]
        start += size


def _check_settings(
    temperature: float, max_tokens: int, stop: Sequence[str], batch_size: int, top_p: float, top_k: int
) -> None:
    """Refuse settings out of range."""
    for good, message in (
        (temperature >= 0, f"temperature must be at least 0, not {temperature}"),
        (max_tokens >= 1, f"max_tokens must be at least 1, not {max_tokens}"),
        (not isinstance(stop, str) and all(stop), f"stop must be a list of non-empty strings, not {stop!r}"),
        (batch_size >= 1, f"batch_size must be at least 1, not {batch_size}"),
        (0 < top_p <= 1, f"top_p must be above 0 and at most 1, not {top_p}"),
        (top_k >= 0, f"top_k must be at least 0, not {top_k}"),
    ):
        if not good:
            raise ValueError(message)
