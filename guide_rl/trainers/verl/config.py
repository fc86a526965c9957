"""A recipe -> verl's configuration.

Guide's own loop decides what is sampled, guided, graded, evaluated, logged and saved, and gives verl's workers the loss. So
verl's configuration describes the cluster, the models, their optimizers and micro-batches, and the rollout servers; what else
verl could do by itself (its data, rewards, advantages, validation, logging) stays unused. `MAPPED`, `OURS` and `REFUSALS` say
what becomes of every field of a recipe, `OWN_KEYS` which keys of verl's are therefore not for users.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guide_rl.config import TrainRecipe

if TYPE_CHECKING:
    from omegaconf import DictConfig

ACTOR, ROLLOUT, CRITIC = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "critic"

MAPPED: dict[str, str] = {
    "engine": "that there is one",
    "verl": "laid over all the rest",
    "seed": f"{ROLLOUT}.seed, {ACTOR}.fsdp_config.seed, {CRITIC}.fsdp.seed",
    "steps": f"trainer.total_training_steps, {ACTOR}.optim.total_training_steps",
    "problems_per_step": f"data.train_batch_size, {ACTOR}.ppo_mini_batch_size",
    "model.path": "actor_rollout_ref.model.path, critic.model.path",
    "model.dtype": f"{ACTOR}.fsdp_config.mixed_precision (ref, critic too), {ROLLOUT}.dtype",
    "model.gradient_checkpointing": "actor_rollout_ref.model.enable_gradient_checkpointing, Megatron's recompute_*; critic's",
    "model.trust_remote_code": "actor_rollout_ref.model.trust_remote_code, critic's too",
    "prompts.max_tokens": f"data.max_prompt_length, {ROLLOUT}.max_model_len (at the start no more than the model takes)",
    "sampling.k": f"{ROLLOUT}.n",
    "sampling.temperature": f"{ROLLOUT}.temperature",
    "sampling.max_tokens": f"data.max_response_length, {ROLLOUT}.max_model_len",
    "sampling.stop": f"{ROLLOUT}.skip_tokenizer_init (SGLang needs a tokenizer to find them)",
    "sampling.batch_size": f"{ROLLOUT}.max_num_seqs (of each server)",
    "loss.advantages": "algorithm.adv_estimator, critic.enable",
    "loss.beta": f"{ACTOR}.use_kl_loss, {ACTOR}.kl_loss_coef",
    "loss.entropy_coef": f"{ACTOR}.entropy_coeff, {ACTOR}.calculate_entropy",
    "critic.learning_rate": "critic.optim.lr",
    "critic.clip": "critic.cliprange_value",
    "optimizer.learning_rate": f"{ACTOR}.optim.lr",
    "optimizer.schedule": f"{ACTOR}.optim.lr_scheduler_type",
    "optimizer.warmup_steps": f"{ACTOR}.optim.lr_warmup_steps",
    "optimizer.weight_decay": f"{ACTOR}.optim.weight_decay, critic's too",
    "optimizer.betas": f"{ACTOR}.optim.betas, critic's too",
    "optimizer.max_grad_norm": f"{ACTOR}.optim.clip_grad, critic's too",
    "optimizer.epochs": f"{ACTOR}.ppo_epochs",
    "optimizer.problems_per_minibatch": f"{ACTOR}.ppo_mini_batch_size",
    "optimizer.tokens_per_microbatch": f"{ACTOR}.ppo_max_token_len_per_gpu; ref's, critic's and those of log-probs too",
    "evaluation.max_tokens": f"data.max_response_length, {ROLLOUT}.max_model_len",
}
"""Recipe field -> the keys of verl's that it sets."""

_OURS = """
    run log_ratios trackers
    problems.train problems.evaluation problems.require_guidance
    budget.rollouts budget.tokens
    prompts.system prompts.guided_template prompts.chat_template prompts.too_long
    sampling.refill
    guidance.trigger guidance.k_guided guidance.keep_guided guidance.ladder guidance.dropout guidance.anneal_steps
    grading.workers grading.timeout_s grading.memory_mb grading.run_untrusted_code_without_sandbox grading.truncated
    loss.correct_weight loss.normalize_std loss.baseline loss.filter_uniform loss.guided_ratio loss.ratio_cap
    loss.ratio_level loss.clip_low loss.clip_high loss.clip_guided loss.reshape loss.reshape_constant
    loss.reshape_percentile loss.reshape_as loss.aggregation loss.group_scale loss.kl_rows loss.old_logprobs
    critic.gamma critic.lam critic.coef critic.warmup_steps critic.rows critic.whiten
    evaluation.every evaluation.samples evaluation.top_p evaluation.top_k
    checkpoints.every checkpoints.keep_last
"""
OURS = frozenset(_OURS.split())
"""Recipe fields that Guide's own loop and loss honour, the same for every engine (`critic.coef`: of a shared backbone)."""

REFUSALS: dict[str, tuple[Callable[[TrainRecipe], bool], str]] = {
    "verl": (
        lambda recipe: _model_engine(recipe) not in ("dp", "megatron"),
        "has another model_engine than dp (FSDP) and megatron, the two known here; set verl.model_engine to one of them",
    ),
    "model.device": (
        lambda recipe: recipe.model.device == "cpu",
        "is cpu, and verl's workers run on accelerators; leave it auto, or set engine to local",
    ),
    "model.lora": (
        lambda recipe: recipe.model.lora is not None,
        "is not carried over to verl's workers; leave it null, or set engine to local",
    ),
    "loss.guided_ratio": (
        lambda recipe: recipe.loss.guided_ratio == "in_context",
        "is in_context, and the workers see the plain prompt only in the update; set it to sampling, or engine to local",
    ),
    "loss.reference_every": (
        lambda recipe: recipe.loss.reference_every is not None,
        "would refresh the reference policy, which verl's workers keep as it was loaded; leave it null, or set engine to local",
    ),
    "critic.warmup_steps": (
        lambda recipe: (
            recipe.loss.advantages == "gae"
            and recipe.critic.warmup_steps > 0
            and (recipe.optimizer.warmup_steps > 0 or recipe.optimizer.schedule != "constant")
        ),
        "holds the policy back, and with it the policy's learning rate in verl's workers, which counts the policy's own steps; "
        "set it to 0, or optimizer.schedule to constant and optimizer.warmup_steps to 0",
    ),
    "critic.backbone": (
        lambda recipe: recipe.loss.advantages == "gae" and recipe.critic.backbone == "shared",
        "is shared, and verl's critic is a model of its own; set it to own, or engine to local",
    ),
    "optimizer.schedule": (
        lambda recipe: recipe.optimizer.schedule == "linear",
        "is linear, which verl's workers do not have; set it to constant or cosine, or engine to local",
    ),
    "optimizer.warmup_steps": (
        lambda recipe: recipe.optimizer.warmup_steps > 0 and recipe.optimizer.schedule == "cosine",
        "before a cosine gives other learning rates in verl's workers (they are one step ahead after the warm-up); set it to "
        "0, or optimizer.schedule to constant, or engine to local",
    ),
}
"""Recipe field -> when engine verl cannot honour it, and what to say then."""

MEGATRON_REFUSALS: dict[str, tuple[Callable[[TrainRecipe], bool], str]] = {
    "model.dtype": (
        lambda recipe: recipe.model.dtype == "float32",
        "float32 is carried over to FSDP only; set it to auto, or leave verl.model_engine at dp",
    ),
    "optimizer.schedule": (
        lambda recipe: recipe.optimizer.schedule != "constant",
        "is carried over to FSDP only; set it to constant, or leave verl.model_engine at dp",
    ),
    "optimizer.warmup_steps": (
        lambda recipe: recipe.optimizer.warmup_steps > 0,
        "is carried over to FSDP only; set it to 0, or leave verl.model_engine at dp",
    ),
    "optimizer.betas": (
        lambda recipe: recipe.optimizer.betas != (0.9, 0.999),
        "are carried over to FSDP only; leave them, or verl.model_engine at dp",
    ),
}
"""What is refused besides with `verl.model_engine=megatron`."""


OWN_KEYS: dict[str, str] = {
    "data.train_files": "problems.train",
    "data.val_files": "problems.evaluation",
    "data.train_batch_size": "problems_per_step",
    "data.seed": "seed",
    "algorithm": "the fields of loss and critic",
    "reward.custom_reward_function": "the problems' grader",
    "custom_reward_function": "the problems' grader",
    "actor_rollout_ref.model.path": "model.path",
    "actor_rollout_ref.model.lora_rank": "engine to local, which trains adapters (model.lora)",
    f"{ROLLOUT}.logprobs_mode": "sampling.temperature, at which all log-probs are",
    f"{ACTOR}.ppo_mini_batch_size": "optimizer.problems_per_minibatch",
    f"{ACTOR}.ppo_epochs": "optimizer.epochs",
    f"{ACTOR}.optim.lr": "optimizer.learning_rate",
    f"{ACTOR}.optim.lr_scheduler_type": "optimizer.schedule",
    f"{ACTOR}.optim.lr_warmup_steps": "optimizer.warmup_steps",
    f"{ACTOR}.optim.lr_warmup_steps_ratio": "optimizer.warmup_steps",
    f"{ACTOR}.clip_ratio": "loss.clip_low and loss.clip_high",
    f"{ACTOR}.clip_ratio_low": "loss.clip_low",
    f"{ACTOR}.clip_ratio_high": "loss.clip_high",
    f"{ACTOR}.policy_loss": "the fields of loss",
    f"{ACTOR}.loss_agg_mode": "loss.aggregation",
    f"{ACTOR}.use_kl_loss": "loss.beta",
    f"{ACTOR}.kl_loss_coef": "loss.beta",
    f"{ACTOR}.entropy_coeff": "loss.entropy_coef",
    f"{ACTOR}.checkpoint": "checkpoints.every (a checkpoint holds all that resuming takes)",
    "critic.checkpoint": "checkpoints.every (a checkpoint holds all that resuming takes)",
    "trainer.del_local_ckpt_after_load": "checkpoints.keep_last",
    f"{ROLLOUT}.ignore_eos": "sampling.max_tokens (a rollout ends where the model ends it)",
    f"{ROLLOUT}.n": "sampling.k",
    f"{ROLLOUT}.temperature": "sampling.temperature",
    f"{ROLLOUT}.top_p": "evaluation.top_p (training samples among all tokens)",
    f"{ROLLOUT}.top_k": "evaluation.top_k (training samples among all tokens)",
    f"{ROLLOUT}.val_kwargs": "the fields of evaluation",
    "critic.enable": "loss.advantages",
    "critic.optim.lr": "critic.learning_rate",
    "critic.cliprange_value": "critic.clip",
    "critic.ppo_mini_batch_size": "optimizer.problems_per_minibatch",
    "critic.ppo_epochs": "optimizer.epochs",
    "trainer.total_epochs": "steps",
    "trainer.total_training_steps": "steps",
    "trainer.critic_warmup": "critic.warmup_steps",
    "trainer.save_freq": "checkpoints.every",
    "trainer.test_freq": "evaluation.every",
    "trainer.logger": "trackers",
    "trainer.default_local_dir": "run",
}
"""verl's keys of which nothing would come, or half of what they say, since Guide does that itself -> what to set instead."""


def refused(recipe: TrainRecipe) -> list[str]:
    """What engine verl cannot honour in a recipe: a sentence each, with the field and what to do."""
    checks = [*REFUSALS.items()] + [*MEGATRON_REFUSALS.items()] * (_model_engine(recipe) == "megatron")
    return [f"{field} {why}" for field, (applies, why) in checks if applies(recipe)]


def require_honoured(recipe: TrainRecipe) -> None:
    """Raise ValueError where the recipe asks for what engine verl cannot do; names the fields and what to do."""
    if errors := refused(recipe):
        raise ValueError("with engine verl, " + "; ".join(errors))


def verl_config(recipe: TrainRecipe) -> "DictConfig":
    """verl's configuration for a recipe: verl's defaults, then what the recipe says, then its `verl` mapping.

    Raises:
        ValueError: the recipe asks for what verl cannot do, verl has no such key, or verl (or its hydra) is not there.
    """
    require_honoured(recipe)
    config = deepcopy(_defaults(_model_engine(recipe)))
    for key, value in derived(recipe).items():
        set_key(config, key, value)
    for key, value in flat({**recipe.verl, "model_engine": _model_engine(recipe)}, config):
        _refuse_own(key.replace("+", ""))
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
    if not _fsdp(recipe):
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
    if not _fsdp(recipe):
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


def _model_engine(recipe: TrainRecipe) -> str:
    """verl's choice of what trains: dp (FSDP), megatron, ..."""
    return str(recipe.verl.get("model_engine", "dp"))


def _fsdp(recipe: TrainRecipe) -> bool:
    """Whether FSDP trains."""
    return _model_engine(recipe) == "dp"


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


def flat(mapping: Mapping[str, Any], config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings, nested or with dots, as dotted keys and values; where the configuration has no keys, all there is one value."""
    for key, value in mapping.items():
        first, _, rest = str(key).partition(".")
        value = {rest: value} if rest else value
        known = config.get(first.lstrip("+"))
        if known and isinstance(value, Mapping) and isinstance(known, Mapping):
            yield from flat(value, known, f"{prefix}{first}.")
        else:
            yield f"{prefix}{first}", value


def _refuse_own(key: str) -> None:
    """Raise ValueError for a key of verl's that is Guide's to set."""
    for own, instead in OWN_KEYS.items():
        if f"{key}.".startswith(f"{own}."):
            raise ValueError(f"verl.{key}: Guide does this itself, not verl; set {instead}")


def set_key(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key that the configuration has; with + anywhere in front of a part, also one that it has not.

    Raises:
        ValueError: there is no such key (names the nearest), or what it holds is of another kind.
    """
    path = key.replace("+", "").split(".")
    if not all(path):
        raise ValueError(f"verl.{key}: a part of this key has no name")
    place = config
    for part in path[:-1]:
        place = place[part]
    if path[-1] not in place and "+" not in key:
        plain = ".".join(path)
        raise ValueError(
            f"verl.{plain}: verl has no such key{_nearest(config, path)} (verl.+{plain} adds it all the same)"
        )
    if "+" not in key and not _alike(place[path[-1]], value):
        plain, held = ".".join(path), _KINDS[type(place[path[-1]])]
        raise ValueError(f"verl.{plain}: verl has {held} here, not {value!r} (verl.+{plain} sets it all the same)")
    place[path[-1]] = value


_KINDS = {dict: "a section", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "text"}
"""What a default of verl's is, in words."""


def _alike(default: Any, value: Any) -> bool:
    """Whether a value may stand for a default of verl's: where this is null or refers to another key, any may."""

    def refers(text: Any) -> bool:
        return isinstance(text, str) and "${" in text

    if default is None or refers(default) or refers(value):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return type(default) is type(value)
    if isinstance(default, int | float):
        return isinstance(value, int | float)
    return isinstance(value, type(default)) or (isinstance(default, str) and value is None)


def _nearest(config: Mapping[str, Any], path: list[str]) -> str:
    """The key that is spelled most like the one at a path: beside it, of the same name elsewhere, or anywhere."""
    names = list(_names(config))
    section, name = ".".join(path[:-1]), path[-1]
    beside = [known.rpartition(".")[2] for known in names if known.rpartition(".")[0] == section]
    close = (
        [".".join([*path[:-1], match]) for match in get_close_matches(name, beside, 1)]
        or sorted((known for known in names if known.endswith(f".{name}")), key=_remoteness)
        or get_close_matches(".".join(path), names, 1)
    )
    return f"; did you mean verl.{close[0]}?" if close else ""


def _remoteness(name: str) -> tuple[bool, int]:
    """Smaller for keys that one is more likely to mean: in the parts that Guide uses, and high up."""
    return name.split(".")[0] not in ("trainer", "ray_kwargs", "actor_rollout_ref", "critic"), name.count(".")


def _names(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all sections and keys."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{key}.")


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
