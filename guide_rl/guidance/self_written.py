"""The policy as its own teacher: `ask` as `chat.client.ChatClient`, answered greedily by the model in this process."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import torch

from guide_rl.chat.client import ChatError, ChatReply, Estimate, Spent
from guide_rl.chat.endpoint import Messages, Row
from guide_rl.config import GuidanceRecipe, PromptsConfig
from guide_rl.disk_cache import DiskCache
from guide_rl.policy import load_policy, pick_device, precision
from guide_rl.prompts import Prompts
from guide_rl.samplers.transformers import TransformersSampler
from guide_rl.types import Request


class PolicyChat:
    """Answers requests with the recipe's model, at temperature 0; use it as a context manager.

    Args:
        recipe: its model, batch_size, max_tokens and chat_template.
        cache: the file of replies.

    Raises:
        ValueError, OSError: the model cannot be had, as in `policy.load_policy`.
    """

    def __init__(self, recipe: GuidanceRecipe, *, cache: str | Path) -> None:
        assert recipe.model is not None
        self._recipe, self._model = recipe, recipe.model
        self._device = pick_device(self._model)
        policy = load_policy(self._model, device=self._device, seed=0)
        self._tokenizer = policy.tokenizer
        self._template = Prompts(policy.tokenizer, PromptsConfig(chat_template=recipe.chat_template)).chat_template
        self._sampler = TransformersSampler(
            model=policy.model,
            tokenizer=policy.tokenizer,
            temperature=0.0,
            max_tokens=recipe.max_tokens,
            batch_size=recipe.batch_size,
        )
        self._name = _fingerprint(policy.causal)
        self._counts: Counter[str] = Counter()
        self._cache = DiskCache(cache)

    def ask(self, requests: Iterable[tuple[str, Messages]]) -> Iterator[tuple[str, ChatReply | ChatError]]:
        """Answer requests in the order in which the answers come; each is stored before it is yielded."""
        in_flight: dict[int, tuple[str, bytes]] = {}
        unread, more, number = iter(requests), True, 0
        while more or in_flight:
            while more and len(in_flight) < self._recipe.batch_size:
                request = next(unread, None)
                if request is None:
                    more = False
                    break
                key, messages = request
                prompt = self._prompt(messages)
                digest = self._digest(prompt)
                row: Row | None = self._cache.get(digest)
                if row is not None:
                    self._counts["cached"] += 1
                    yield key, ChatReply(*row, cached=True)
                    continue
                try:
                    self._sampler.submit([Request(str(number), 0, False, prompt)])
                except ValueError as error:
                    self._counts["failed"] += 1
                    why = str(error).partition(";")[0]  # what follows names fields of another recipe
                    yield key, ChatError(f"the model cannot take its prompt and a reply of max_tokens: {why}")
                else:
                    in_flight[number] = key, digest
                    number += 1
            if in_flight:
                yield from self._finished(in_flight)

    def _finished(self, in_flight: dict[int, tuple[str, bytes]]) -> Iterator[tuple[str, ChatReply]]:
        """Work until replies are finished; stores and hands them out."""
        dtype = precision(self._model, self._device)
        with torch.autocast(self._device.type, dtype=dtype, enabled=dtype != torch.float32):
            rollouts = self._sampler.poll()
        for rollout in rollouts:
            key, digest = in_flight.pop(int(rollout.problem_id))
            finish = "length" if rollout.finish == "length" else "stop"
            row = (rollout.text, finish, len(rollout.prompt_ids), len(rollout.token_ids))
            self._cache.put(digest, row)
            self._counts.update(asked=1, prompt_tokens=row[2], completion_tokens=row[3])
            yield key, ChatReply(*row, cached=False)

    def estimate(self, requests: Iterable[tuple[str, Messages]]) -> Estimate:
        """What `ask` would use."""
        prompts = [self._prompt(messages) for _, messages in requests]
        new = [prompt for prompt in prompts if self._cache.get(self._digest(prompt)) is None]
        return Estimate(
            len(prompts), len(prompts) - len(new), sum(map(len, new)), len(new) * self._recipe.max_tokens, None
        )

    @property
    def spent(self) -> Spent:
        """What was used until now; it costs nothing."""
        names = ("asked", "cached", "retried", "failed", "prompt_tokens", "completion_tokens")
        return Spent(**{name: self._counts[name] for name in names}, cost=None)

    @property
    def trouble(self) -> str:
        """Nothing: no try fails."""
        return ""

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prompt(self, messages: Messages) -> tuple[int, ...]:
        """Messages as token ids."""
        text = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _digest(self, prompt: tuple[int, ...]) -> bytes:
        """What a reply depends on, hashed."""
        return hashlib.sha256(json.dumps([self._name, self._recipe.max_tokens, prompt]).encode()).digest()


def _fingerprint(model: Any) -> str:
    """Stands for a model's weights: names, shapes and sums."""
    digest = hashlib.sha256()
    for name, weights in model.state_dict().items():
        digest.update(f"{name} {tuple(weights.shape)} {weights.double().sum().item()!r}".encode())
    return digest.hexdigest()
