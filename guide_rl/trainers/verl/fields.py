"""What becomes of every field of a recipe with engine verl, and which keys of verl's are therefore not for users."""

from collections.abc import Callable

from guide_rl.config import TrainRecipe

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
        lambda recipe: model_engine(recipe) not in ("dp", "megatron"),
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
    checks = [*REFUSALS.items()] + [*MEGATRON_REFUSALS.items()] * (model_engine(recipe) == "megatron")
    return [f"{field} {why}" for field, (applies, why) in checks if applies(recipe)]


def require_honoured(recipe: TrainRecipe) -> None:
    """Raise ValueError where the recipe asks for what engine verl cannot do; names the fields and what to do."""
    if errors := refused(recipe):
        raise ValueError("with engine verl, " + "; ".join(errors))


def refuse_own(key: str) -> None:
    """Raise ValueError for a key of verl's that is Guide's to set."""
    for own, instead in OWN_KEYS.items():
        if f"{key}.".startswith(f"{own}."):
            raise ValueError(f"verl.{key}: Guide does this itself, not verl; set {instead}")


def model_engine(recipe: TrainRecipe) -> str:
    """verl's choice of what trains: dp (FSDP), megatron, ..."""
    return str(recipe.verl.get("model_engine", "dp"))


def fsdp(recipe: TrainRecipe) -> bool:
    """Whether FSDP trains."""
    return model_engine(recipe) == "dp"
