"""A recipe -> verl's configuration.

Guide's own loop decides what is sampled, guided, graded, evaluated, logged and saved, and gives verl's workers the loss. So
verl's configuration describes the cluster, the models, their optimizers and micro-batches, and the rollout servers; what else
verl could do by itself (its data, rewards, advantages, validation, logging) stays unused. What becomes of every field of a
recipe stands in `fields`.
"""

import math
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guide_rl.config import TrainRecipe
from guide_rl.trainers.verl.fields import ACTOR, ROLLOUT, fsdp, model_engine, refuse_own, require_honoured
from guide_rl.trainers.verl.keys import flat, set_key

if TYPE_CHECKING:
    from omegaconf import DictConfig


def verl_config(recipe: TrainRecipe) -> "DictConfig":
    """verl's configuration for a recipe: verl's defaults, then what the recipe says, then its `verl` mapping.

    Raises:
        ValueError: the recipe asks for what verl cannot do, verl has no such key, or verl (or its hydra) is not there.
    """
    require_honoured(recipe)
    config = deepcopy(_defaults(model_engine(recipe)))
    for key, value in derived(recipe).items():
        set_key(config, key, value)
    for key, value in flat({**recipe.verl, "model_engine": model_engine(recipe)}, config):
        refuse_own(key.replace("+", ""))
        set_key(config, key, value)
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        made = OmegaConf.create(config)
        OmegaConf.to_container(made, resolve=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"verl: {' '.join(str(error).split())}") from None
    _check_ranks(made)
    _check_room(recipe, made)
    _check_determinism(made.actor_rollout_ref.rollout)
    OmegaConf.set_struct(made, True)
    return made


def limit_length(config: "DictConfig", model: Any) -> None:
    """Change the servers' longest row to what the model takes, beyond which they do not start, though all prompts be short.

    Args:
        config: verl's.
        model: the model's transformers config.
    """
    rollout = config.actor_rollout_ref.rollout
    positions = getattr(model.get_text_config(), "max_position_embeddings", None)
    if positions and rollout.max_model_len:
        rollout.max_model_len = min(rollout.max_model_len, positions)


def as_yaml(recipe: TrainRecipe) -> str:
    """verl's configuration for a recipe, interpolations resolved, as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(verl_config(recipe), resolve=True)


def derived(recipe: TrainRecipe) -> dict[str, Any]:
    """The keys of verl's that the recipe's own fields set, with dots."""
    optimizer, longest = recipe.optimizer, _longest_rollout(recipe)
    model = {
        "path": _seen_from_anywhere(recipe.model.path),
        "trust_remote_code": recipe.model.trust_remote_code,
        "enable_gradient_checkpointing": recipe.model.gradient_checkpointing,
    }
    steps_of_optimizer = {
        "total_training_steps": recipe.steps,
        "weight_decay": optimizer.weight_decay,
        "betas": list(optimizer.betas),
        "clip_grad": optimizer.max_grad_norm,
    }
    tokens = optimizer.tokens_per_microbatch
    keys = {
        "data.train_batch_size": recipe.problems_per_step,
        "data.max_prompt_length": recipe.prompts.max_tokens,
        "data.max_response_length": longest,
        **_below("actor_rollout_ref.model", model),
        f"{ACTOR}.ppo_mini_batch_size": optimizer.problems_per_minibatch or recipe.problems_per_step,
        f"{ACTOR}.ppo_epochs": optimizer.epochs,
        f"{ACTOR}.use_dynamic_bsz": True,
        f"{ACTOR}.ppo_max_token_len_per_gpu": tokens,
        f"{ACTOR}.use_kl_loss": recipe.loss.beta > 0,
        f"{ACTOR}.kl_loss_coef": recipe.loss.beta,
        f"{ACTOR}.entropy_coeff": recipe.loss.entropy_coef,
        f"{ACTOR}.calculate_entropy": recipe.loss.entropy_coef > 0,
        **_below(f"{ACTOR}.optim", steps_of_optimizer | _schedule(recipe)),
        f"{ROLLOUT}.name": "vllm",
        f"{ROLLOUT}.n": recipe.sampling.k,
        f"{ROLLOUT}.seed": recipe.seed,
        f"{ROLLOUT}.temperature": recipe.sampling.temperature,
        f"{ROLLOUT}.max_model_len": recipe.prompts.max_tokens + longest,
        f"{ROLLOUT}.max_num_seqs": recipe.sampling.batch_size,
        f"{ROLLOUT}.skip_tokenizer_init": not recipe.sampling.stop,
        f"{ROLLOUT}.calculate_log_probs": True,
        f"{ROLLOUT}.dtype": "float32" if recipe.model.dtype == "float32" else "bfloat16",
        "algorithm.adv_estimator": "gae" if recipe.loss.advantages == "gae" else "grpo",
        "critic.enable": recipe.loss.advantages == "gae",
        **_below("critic.model", model),
        **_below("critic.optim", steps_of_optimizer | {"lr": recipe.critic.learning_rate}),
        "critic.ppo_max_token_len_per_gpu": tokens,
        "critic.+ppo_infer_max_token_len_per_gpu": tokens,
        "critic.cliprange_value": math.inf if recipe.critic.clip is None else recipe.critic.clip,
        "trainer.total_training_steps": recipe.steps,
        **UNUSED,
    }
    if not fsdp(recipe):
        if recipe.model.gradient_checkpointing:
            for section in (f"{ACTOR}.megatron", "critic.megatron"):
                keys |= _below(f"{section}.override_transformer_config", RECOMPUTE)
        return keys
    keys |= {f"{ACTOR}.strategy": "fsdp2", "critic.strategy": "fsdp2"}
    precision = "fp32" if recipe.model.dtype == "float32" else "bf16"
    for section in (f"{ACTOR}.fsdp_config", "actor_rollout_ref.ref.fsdp_config", "critic.fsdp"):
        keys[f"{section}.seed"] = recipe.seed
        keys[f"{section}.+mixed_precision"] = {"param_dtype": precision, "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    return keys


UNUSED: dict[str, Any] = {
    "trainer.val_before_train": False,
    "trainer.test_freq": -1,
    "trainer.save_freq": -1,
    "trainer.resume_mode": "disable",
    "trainer.logger": [],
    "trainer.v1.trainer_mode": "sync",
    "transfer_queue.enable": False,
    "reward.num_workers": 0,
}
"""What verl would do by itself and Guide does instead, off or as small as it can be."""


RECOMPUTE = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
"""Megatron's gradient checkpointing, of every layer."""


def _schedule(recipe: TrainRecipe) -> dict[str, Any]:
    """The optimizer's keys with which verl's learning rate at every step is `schedule.learning_rate`.

    A constant rate after a warm-up is verl's cosine between 1 and 1, whose warm-up starts above 0 as ours does; the warm-up
    of verl's constant starts at 0.
    """
    optimizer = recipe.optimizer
    keys: dict[str, Any] = {"lr": optimizer.learning_rate, "lr_warmup_steps": optimizer.warmup_steps}
    if not fsdp(recipe):
        return keys
    if optimizer.warmup_steps == 0:
        return keys | {"lr_scheduler_type": optimizer.schedule, "min_lr_ratio": 0.0, "zero_indexed_step": True}
    return keys | {"lr_scheduler_type": "cosine", "min_lr_ratio": 1.0, "zero_indexed_step": False}


def _seen_from_anywhere(model: str) -> str:
    """A model folder by its whole path, since workers run where Ray was started; a hub name as it is."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _longest_rollout(recipe: TrainRecipe) -> int:
    """The longest rollout of training and evaluation, in tokens."""
    evaluated = recipe.evaluation.max_tokens if recipe.evaluation.every else None
    return max(recipe.sampling.max_tokens, evaluated or 0)


def _below(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as keys of a section."""
    return {f"{section}.{key}": value for key, value in values.items()}


@cache
def _defaults(model_engine: str) -> dict[str, Any]:
    """verl's own configuration, composed, interpolations unresolved."""
    if find_spec("verl") is None:
        raise ValueError("engine verl needs verl, which is not installed: pip install 'guide-rl[verl]'")
    try:
        from hydra import compose, initialize_config_module
        from omegaconf import OmegaConf
    except ImportError as error:
        raise ValueError(f"engine verl needs hydra-core 1.3 ({error}): pip install 'guide-rl[verl]'") from None
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[f"model_engine={model_engine}"])
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _check_ranks(config: Any) -> None:
    """Raise ValueError where the numbers of nodes and of GPUs make no ranks, or no whole rollout servers."""
    trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
    sizes = {f"trainer.{name}": trainer[name] for name in ("nnodes", "n_gpus_per_node")}
    parts = ("tensor_model_parallel_size", "data_parallel_size", "pipeline_model_parallel_size")
    sizes |= {f"{ROLLOUT}.{name}": rollout[name] for name in parts}
    for key, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"verl.{key} must be a whole number above 0, not {size!r}")
    ranks, server = trainer.nnodes * trainer.n_gpus_per_node, math.prod(rollout[name] for name in parts)
    if ranks % server:
        raise ValueError(
            f"verl.trainer.nnodes x verl.trainer.n_gpus_per_node ({ranks}) must be a multiple of the GPUs of a rollout server "
            f"({server}: verl.{ROLLOUT}.{parts[0]} x {parts[1]} x {parts[2]})"
        )


def _check_room(recipe: TrainRecipe, config: Any) -> None:
    """Raise ValueError when a row is longer than what a GPU takes at once, at which verl stops only later."""
    row = recipe.prompts.max_tokens + _longest_rollout(recipe)
    actor = config.actor_rollout_ref.actor
    room = actor.ppo_max_token_len_per_gpu * actor.get("ulysses_sequence_parallel_size", 1)
    if actor.use_dynamic_bsz and room < row:
        raise ValueError(
            f"optimizer.tokens_per_microbatch ({actor.ppo_max_token_len_per_gpu}) holds no whole row of prompts.max_tokens + "
            f"sampling.max_tokens ({row}), which verl does not split; raise it, or lower one of these"
        )


def _check_determinism(rollout: Any) -> None:
    """Raise ValueError where servers are to be deterministic that cannot be: they would refuse requests, with their seeds."""
    if rollout.full_determinism and rollout.name == "sglang":
        raise ValueError(
            f"verl.{ROLLOUT}.full_determinism is true, which verl's SGLang servers do not have; set it to false, or "
            f"verl.{ROLLOUT}.name to vllm"
        )
