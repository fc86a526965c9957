"""Tiny random causal language models and a character tokenizer, made in memory."""

import string
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SPECIAL = ["<|pad|>", "<|eos|>", "<|unk|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|assistant|>' if message['role'] == 'assistant' else '<|user|>' }}"
    "{{ message['content'] }}{% if message['role'] == 'assistant' %}<|eos|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character; EOS `<|eos|>`, padding `<|pad|>`, a chat template."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *string.printable[:95], "\n"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|eos|>", pad_token="<|pad|>", unk_token="<|unk|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model(name: str, seed: int = 0, **overrides: Any) -> Any:
    """A random model of two layers and the tokenizer's vocabulary, in eval mode.

    Args:
        name: qwen2, llama (both with two query heads per key head) or gpt2.
        seed: seed of its weights.
        overrides: fields of its config.
    """
    tokenizer = tiny_tokenizer()
    shared = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # Far enough from 0 that random models have clear preferences.
        "initializer_range": 0.15,
    }
    rotary = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    absolute = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
    builders = {
        "qwen2": (Qwen2ForCausalLM, Qwen2Config, rotary | {"tie_word_embeddings": True}),
        "llama": (LlamaForCausalLM, LlamaConfig, rotary),
        "gpt2": (GPT2LMHeadModel, GPT2Config, absolute | {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}),
    }
    model_class, config_class, own = builders[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(config_class(**{**shared, **own, **overrides})).eval()
