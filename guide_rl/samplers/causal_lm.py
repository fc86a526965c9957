"""The model's side of sampling: prompts -> key-value rows, newest tokens -> logits, and which models can do it.

The model object is the trainer's own; nothing here leaves a trace in it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from guide_rl.samplers.kv_cache import GROUPED_ATTENTION, RowCache

INSTEAD = "take another model"
WHOLE_ROW_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layer types that, within their window, attend to the whole row."""

Ids = tuple[int, ...]


class CausalLM:
    """A transformers causal language model, maybe wrapped by peft, as a decoder of batched rows.

    Raises:
        ValueError: it keeps no plain key-value cache or takes no explicit positions.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.config = self.causal.config.get_text_config()
        self.device = torch.device(self.causal.device)
        self._check_architecture()
        parameters = signature(self.causal.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._grouped = self.causal._supports_attention_backend and self.config._attn_implementation != "eager"

    @property
    def eos_token_ids(self) -> set[int]:
        """What the generation config says; maybe nothing."""
        eos = getattr(self.causal.generation_config, "eos_token_id", None)
        if eos is None:
            return set()
        return set(eos) if isinstance(eos, list | tuple) else {eos}

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Eval mode without gradients (no inference tensors, which training could not use); all is restored after."""
        training = [module for module in self.model.modules() if module.training]
        for module in training:
            module.training = False
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True

    def prefill(self, prompts_U: Sequence[Ids]) -> tuple[Tensor, Cache]:
        """Run U prompts in one pass.

        Returns:
            Logits of their first tokens, [U, V], and their key-value rows, padded on the left.

        Raises:
            ValueError: the model did not fill a plain key-value cache.
        """
        longest = max(map(len, prompts_U))
        ids_UP = torch.tensor([(0,) * (longest - len(ids)) + ids for ids in prompts_U], device=self.device)
        lengths_U1 = torch.tensor([[len(ids)] for ids in prompts_U], device=self.device)
        positions_UP = torch.arange(longest, device=self.device) - (longest - lengths_U1)
        cache = DynamicCache()
        logits_UV = self._forward(ids_UP, (positions_UP >= 0).long(), positions_UP.clamp_min(0), cache)
        if not cache.layers or not all(type(layer) is DynamicLayer and layer.is_initialized for layer in cache.layers):
            raise ValueError(f"{type(self.causal).__name__} keeps no plain key-value cache; {INSTEAD}")
        return logits_UV, cache

    def decode(self, tokens_N: Tensor, cache: RowCache) -> Tensor:
        """Feed each row its newest token.

        Returns:
            Logits of the next tokens, [N, V].
        """
        positions_N1, mask = cache.open_column()
        if self._grouped:
            with self._attention(GROUPED_ATTENTION):
                logits_NV = self._forward(tokens_N[:, None], mask, positions_N1, cache)
        else:
            dtype = self.causal.dtype
            additive = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
            logits_NV = self._forward(tokens_N[:, None], additive, positions_N1, cache)
        cache.close_column()
        return logits_NV

    def check_prompt(self, prompt: Ids, max_tokens: int) -> None:
        """Refuse a prompt that the model cannot continue by `max_tokens` tokens.

        Raises:
            ValueError: it is empty, holds unknown token ids or leaves too little room.
        """
        if not prompt:
            raise ValueError("the prompt is empty; a prompt needs at least one token")
        if not 0 <= min(prompt) <= max(prompt) < self.config.vocab_size:
            raise ValueError(
                f"the prompt holds token ids from {min(prompt)} to {max(prompt)}, the model knows 0 to "
                f"{self.config.vocab_size - 1}; the tokenizer is not this model's"
            )
        self.check_length(len(prompt), max_tokens)

    def check_length(self, prompt_tokens: int, max_tokens: int, *, knob: str = "sampling.max_tokens") -> None:
        """As the function of that name, for this model."""
        check_length(self.config, prompt_tokens, max_tokens, knob=knob)

    def _check_architecture(self) -> None:
        """Refuse models without a key-value row per token in every layer."""
        name, types = type(self.causal).__name__, set(getattr(self.config, "layer_types", None) or ())
        if self.causal._is_stateful or not types <= WHOLE_ROW_LAYERS or self.causal.config.is_encoder_decoder:
            raise ValueError(f"{name} keeps a state other than one key-value row per token in every layer; {INSTEAD}")
        if "position_ids" not in signature(self.causal.forward).parameters:
            raise ValueError(
                f"{name} takes no position_ids, so rows of different lengths cannot share a batch; {INSTEAD}"
            )

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """One pass; the logits of the last position."""
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **self._last_only,
        )
        return output.logits[:, -1]

    @contextmanager
    def _attention(self, implementation: str) -> Iterator[None]:
        """Compute attention by another registered function for a while."""
        before = self.config._attn_implementation
        self.config._attn_implementation = implementation
        try:
            yield
        finally:
            self.config._attn_implementation = before


def check_length(config: Any, prompt_tokens: int, max_tokens: int, *, knob: str = "sampling.max_tokens") -> None:
    """Raise ValueError when a prompt of so many tokens leaves less room than `max_tokens`, which `knob` sets.

    Args:
        config: the text config of a transformers model.
        prompt_tokens: tokens of the longest prompt.
        max_tokens: tokens of the longest rollout.
        knob: the field that sets those.
    """
    for limit, name, instead in _length_limits(config):
        if prompt_tokens + max_tokens <= limit:
            continue
        rooms = ((knob, limit - prompt_tokens), ("prompts.max_tokens", limit - max_tokens))
        remedies = [f"{field} to {room} or less" for field, room in rooms if room >= 1]
        raise ValueError(
            f"a prompt of {prompt_tokens} tokens and a rollout of {max_tokens} exceed the model's {name} of "
            f"{limit}; " + " or ".join([f"lower {' or '.join(remedies)}"] * bool(remedies) + [instead])
        )


def _length_limits(config: Any) -> list[tuple[int, str, str]]:
    """The limits on prompt + rollout: number, what it is called, what helps besides shorter texts."""
    types = getattr(config, "layer_types", None) or WHOLE_ROW_LAYERS
    limits = [
        ("max_position_embeddings", True, "take a model with more positions"),
        ("sliding_window", "sliding_attention" in types, INSTEAD),
        ("attention_chunk_size", "chunked_attention" in types, INSTEAD),
    ]
    sizes = [(getattr(config, name, None), name, instead) for name, applies, instead in limits if applies]
    return [(size, name, instead) for size, name, instead in sizes if size is not None]
