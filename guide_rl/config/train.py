"""`guide train`: sampling, guidance, grading, objective, optimizer, budget, evaluation."""

from dataclasses import dataclass, field
from typing import Any, Literal

from guide_rl.config.checks import require, require_range
from guide_rl.config.shared import CheckpointsConfig, GradingConfig, ModelConfig, PromptsConfig


@dataclass(frozen=True)
class ProblemsConfig:
    """Where the problems are."""

    train: str
    """JSON lines file of training problems: question, answer and, maybe, id, guidance, solution, grader, stratum, metadata."""
    evaluation: str | None = None
    """JSON lines file of held-out problems."""
    require_guidance: bool = False
    """Refuse training problems without guidance instead of training them plainly."""


@dataclass(frozen=True)
class SamplingConfig:
    """How rollouts are sampled."""

    k: int = 8
    """Plain rollouts per problem."""
    temperature: float = 1.0
    """Sampling temperature; log-probs are at this temperature everywhere."""
    refill: int = 0
    """Where groups turn out uniform, sample up to so many further batches of problems until problems_per_step others are found (DAPO's dynamic sampling)."""
    max_tokens: int = 3072
    """Longest rollout, in tokens."""
    stop: list[str] = field(default_factory=list)
    """Strings that end a rollout (finish reason `stop`); they are cut from the text, not from the tokens."""
    batch_size: int = 128
    """Rows decoded at once; more is faster until memory runs out."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: v >= 1, "at least 1", "k", "max_tokens", "batch_size", prefix="sampling.")
        require_range(
            self,
            lambda v: v >= 0.001,
            "at least 0.001 in training (evaluation is greedy by itself)",
            "temperature",
            prefix="sampling.",
        )
        require_range(self, lambda v: v >= 0, "at least 0", "refill", prefix="sampling.")
        require(all(self.stop), "sampling.stop holds an empty string; remove it")


@dataclass(frozen=True)
class GuidanceConfig:
    """Who gets guidance."""

    trigger: Literal["never", "all_incorrect", "mostly_incorrect", "always", "only_guided"] = "all_incorrect"
    """When a problem gets guided rollouts: never (GRPO), all plain rollouts wrong, plain accuracy below 0.25, always, or guided rollouts only."""
    k_guided: int | None = None
    """Guided rollouts per triggered problem; null means sampling.k."""
    keep_guided: Literal["all", "successful"] = "all"
    """Which guided rollouts join the group."""
    ladder: bool = False
    """Show the first point of a problem's guidance, and one more whenever all guided rollouts fail, within the step; the level reached is remembered."""
    dropout: float = 0.0
    """Share of triggered problems that get no guidance after all, by chance."""
    anneal_steps: int | None = None
    """Give guidance to a share of triggered problems that falls linearly to none over so many steps; null means to all of them, always."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: v >= 1, "at least 1 or null", "k_guided", "anneal_steps", prefix="guidance.")
        require_range(self, lambda v: 0 <= v < 1, "from 0 to below 1", "dropout", prefix="guidance.")


@dataclass(frozen=True)
class LossConfig:
    """The objective (paper, equation 6) and its switches."""

    advantages: Literal["grpo", "gae", "psr", "nsr", "w_reinforce"] = "grpo"
    """What a rollout is worth: relative to its group (GRPO), by a critic (PPO; see critic), or, without a baseline: correct rollouts only, incorrect ones only, or both."""
    correct_weight: float = 0.1
    """The lambda of advantages w_reinforce: what a correct rollout weighs beside an incorrect one."""
    normalize_std: bool = True
    """Divide the group's advantages by its standard deviation."""
    baseline: Literal["joint", "plain", "leave_one_out"] = "joint"
    """What is subtracted from a reward: the mean of the group, of its plain rows, or of all its other rows."""
    filter_uniform: bool = True
    """Leave groups with equal rewards out of the sum and of the normaliser (Filter-GRPO, Guide-GRPO)."""
    guided_ratio: Literal["sampling", "plain", "in_context", "none", "truncated"] = "sampling"
    """Importance ratio of guided rows: plain over guided prompt (the paper), plain over plain, guided over guided, none, or sampling with a detached cap."""
    ratio_cap: float = 2.0
    """Cap of guided_ratio truncated."""
    ratio_level: Literal["token", "sequence", "gspo"] = "token"
    """Guided rows: a ratio a token (the paper's equation 6), one a rollout that is the product of these (equation 13), or their geometric mean (GSPO)."""
    clip_low: float = 0.2
    """Ratios below 1 - clip_low are clipped."""
    clip_high: float = 0.2
    """Ratios above 1 + clip_high are clipped."""
    clip_guided: bool = False
    """Clip guided rows too (with clip the paper saw divergence near step 50)."""
    reshape: Literal["none", "static", "adaptive"] = "none"
    """Reshape guided ratios by f(w) = 1/(c + w): c = reshape_constant, or the rollout's own percentile of w (paper, appendix E)."""
    reshape_constant: float = 1.0
    """The c of reshape static."""
    reshape_percentile: float = 90.0
    """The percentile of reshape adaptive."""
    reshape_as: Literal["surrogate", "weight"] = "surrogate"
    """What f shapes: the token's surrogate w f(w) A, or a detached weight f(w) on A grad log pi."""
    aggregation: Literal["sequence_mean", "token_mean", "constant"] = "sequence_mean"
    """Mean per rollout and then per group (the paper), per token (DAPO), or sum over sampling.max_tokens (Dr. GRPO)."""
    group_scale: Literal["k", "size"] = "k"
    """Divide a group's sum by k (the paper; a guided group weighs more) or by its size."""
    beta: float = 0.0
    """Weight of the KL penalty towards the reference policy; 0 means no reference policy."""
    kl_rows: Literal["plain", "all"] = "plain"
    """Rows that the KL penalty counts."""
    reference_every: int | None = None
    """Refresh the reference policy every so many steps; null means never."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    old_logprobs: Literal["recomputed", "sampler"] = "recomputed"
    """Old log-probs: recomputed by the trainer under the prompt that sampled (exact), or the sampler's own (cheaper)."""

    def __post_init__(self) -> None:
        at_least_0 = ("clip_low", "clip_high", "beta", "entropy_coef", "correct_weight")
        require_range(self, lambda v: v >= 0, "at least 0", *at_least_0, prefix="loss.")
        require_range(self, lambda v: v > 0, "above 0", "ratio_cap", "reshape_constant", prefix="loss.")
        require_range(self, lambda v: 0 < v < 100, "between 0 and 100", "reshape_percentile", prefix="loss.")
        require(self.clip_low < 1, f"loss.clip_low must be below 1, not {self.clip_low}")
        require_range(self, lambda v: v >= 1, "at least 1 or null", "reference_every", prefix="loss.")
        require(
            self.reference_every is None or self.beta > 0,
            "loss.reference_every refreshes a reference policy, which exists only with loss.beta > 0; set one of them",
        )
        require(
            self.reshape == "none" or self.guided_ratio in ("sampling", "plain", "in_context"),
            f"loss.reshape {self.reshape} shapes an importance ratio, and loss.guided_ratio {self.guided_ratio} leaves none "
            "to shape; set loss.reshape to none or loss.guided_ratio to sampling",
        )
        require(
            self.ratio_level == "token" or self.guided_ratio in ("sampling", "plain", "in_context"),
            f"loss.ratio_level {self.ratio_level} needs a ratio of two policies, and loss.guided_ratio {self.guided_ratio} is none; "
            "set loss.ratio_level to token",
        )
        require(
            self.ratio_level == "token" or self.reshape != "adaptive",
            f"loss.reshape adaptive takes a percentile over the tokens of a rollout, which loss.ratio_level {self.ratio_level} "
            "makes all equal; set one of them to its default",
        )
        require(
            not (self.clip_guided and self.reshape != "none"),
            f"loss.clip_guided cannot clip ratios that loss.reshape {self.reshape} moved away from 1; turn one off",
        )
        require(
            not (self.clip_guided and self.guided_ratio in ("none", "truncated")),
            f"loss.clip_guided has nothing to clip with loss.guided_ratio {self.guided_ratio}; set it to false",
        )
        require(
            not (self.old_logprobs == "sampler" and self.guided_ratio == "plain"),
            "loss.guided_ratio plain needs old log-probs of guided rows under the plain prompt, which no sampler has; "
            "set loss.old_logprobs to recomputed",
        )


@dataclass(frozen=True)
class CriticConfig:
    """The critic of PPO and Guide-PPO: loss.advantages gae (algorithm 3)."""

    backbone: Literal["own", "shared"] = "own"
    """A copy of the policy of its own, or the policy's layers, which then learn the values besides."""
    learning_rate: float = 1e-5
    """Learning rate of the critic (of its head alone where the backbone is shared)."""
    gamma: float = 1.0
    """Discount of a token's reward by the next."""
    lam: float = 0.95
    """The lambda of generalised advantage estimation: 1 is the return less the value, 0 one step ahead."""
    clip: float | None = 0.5
    """A value gains nothing by moving further than this from what it was; null means no clip."""
    coef: float = 0.5
    """Weight of the value loss beside the policy's where the backbone is shared."""
    warmup_steps: int = 0
    """First steps in which the critic learns and the policy does not."""
    rows: Literal["all", "plain"] = "all"
    """Rollouts whose returns the critic is fitted on; returns of guided ones say more than the plain prompt deserves."""
    whiten: bool = True
    """Shift and scale the advantages of a step's tokens, plain and guided together, to mean 0 and variance 1."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: v > 0, "above 0", "learning_rate", "clip", prefix="critic.")
        require_range(self, lambda v: 0 <= v <= 1, "from 0 to 1", "gamma", "lam", prefix="critic.")
        require_range(self, lambda v: v >= 0, "at least 0", "coef", "warmup_steps", prefix="critic.")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    learning_rate: float = 1e-6
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up: constant, or falling to 0 at the last step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    epochs: int = 1
    """Passes over the rollouts of a step (the paper's mu)."""
    problems_per_minibatch: int | None = None
    """Problems per optimizer step; null means all of the step. A group is never split."""
    tokens_per_microbatch: int = 16384
    """Padded tokens per forward and backward pass; lower it when memory runs out (and try 4096 on a CPU: it fits the caches better). Results do not depend on it but through rounding."""

    def __post_init__(self) -> None:
        at_least_1 = ("epochs", "problems_per_minibatch", "tokens_per_microbatch")
        require_range(self, lambda v: v >= 1, "at least 1", *at_least_1, prefix="optimizer.")
        require_range(self, lambda v: v >= 0, "at least 0", "warmup_steps", "weight_decay", prefix="optimizer.")
        require_range(self, lambda v: v > 0, "above 0", "learning_rate", "max_grad_norm", prefix="optimizer.")
        require(
            all(0 <= beta < 1 for beta in self.betas), f"optimizer.betas must be from 0 to below 1, not {self.betas}"
        )


@dataclass(frozen=True)
class BudgetConfig:
    """Stop before the last step: methods are compared at an equal budget, not at equal steps."""

    rollouts: int | None = None
    """Stop after the step that reaches this many sampled rollouts, plain and guided; null means no limit."""
    tokens: int | None = None
    """Stop after the step that reaches this many sampled tokens; null means no limit."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: v >= 1, "at least 1 or null", "rollouts", "tokens", prefix="budget.")


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation."""

    every: int = 0
    """Evaluate every so many steps, and before the first and after the last; 0 means never."""
    samples: int = 0
    """Rollouts per problem at temperature 1 for pass@k, with k in powers of two up to this; 0 means greedy pass@1 only."""
    max_tokens: int | None = None
    """Longest rollout; null means sampling.max_tokens."""
    top_p: float = 1.0
    """Nucleus sampling for the pass@k samples."""
    top_k: int = 0
    """Sample among the top_k likeliest tokens only; 0 means all."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: v >= 0, "at least 0", "every", "samples", "top_k", prefix="evaluation.")
        require_range(self, lambda v: v >= 1, "at least 1 or null", "max_tokens", prefix="evaluation.")
        require_range(self, lambda v: 0 < v <= 1, "above 0 and at most 1", "top_p", prefix="evaluation.")


@dataclass(frozen=True)
class TrainRecipe:
    """`guide train`: Guide-GRPO, Guide-PPO or what they are compared with."""

    model: ModelConfig
    problems: ProblemsConfig
    run: str = "runs/train"
    """The run folder; must not hold a run yet."""
    engine: Literal["local", "verl"] = "local"
    """What trains and samples: this process on one device, or verl's workers on a Ray cluster."""
    verl: dict[str, Any] = field(default_factory=dict)
    """For engine verl: settings of verl's own, which win over what the other fields come to, such as {trainer: {nnodes: 2}}; also verl.trainer.nnodes=2. A key with + in front is added to those that verl knows."""
    seed: int = 0
    """Seed of everything random: data order, sampling, new weights."""
    steps: int = 400
    """Training steps: each samples a batch of problems and runs the optimizer over it."""
    problems_per_step: int = 64
    """Problems in a step's batch."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    log_ratios: bool = True
    """Write the importance ratio of every guided rollout, token by token, into rollouts.jsonl; its lines become about four times as long."""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=list)
    """Where metrics go besides metrics.jsonl, through accelerate; each needs its own package."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: v >= 1, "at least 1", "steps", "problems_per_step")
        require(
            self.engine == "verl" or not self.verl,
            "verl holds settings of engine verl; set engine to verl, or drop them (verl={})",
        )
        require_range(self, lambda v: 0 <= v < 2**63, "from 0 to below 2**63", "seed")
        minibatch = self.optimizer.problems_per_minibatch
        require(
            minibatch is None or self.problems_per_step % minibatch == 0,
            f"optimizer.problems_per_minibatch ({minibatch}) must divide problems_per_step ({self.problems_per_step})",
        )
        require(
            self.evaluation.every == 0 or self.problems.evaluation is not None,
            "evaluation.every is set but problems.evaluation names no file; set it or set evaluation.every to 0",
        )
        require(
            self.guidance.trigger != "only_guided" or self.loss.baseline != "plain",
            "loss.baseline plain needs plain rollouts, and guidance.trigger only_guided samples none; set loss.baseline to joint",
        )
        require(
            self.guidance.trigger != "only_guided"
            or self.guidance.keep_guided == "all"
            or self.loss.advantages not in ("grpo", "nsr"),
            f"guidance.keep_guided successful leaves correct rollouts only, and guidance.trigger only_guided samples no others: "
            f"with loss.advantages {self.loss.advantages} nothing is learned from them; set guidance.keep_guided to all",
        )
        require(
            not (self.guidance.trigger == "never" and self.problems.require_guidance),
            "problems.require_guidance asks for guidance that guidance.trigger never does not use; drop one of them",
        )
        require(
            self.loss.advantages == "grpo" or not self.loss.filter_uniform,
            f"loss.filter_uniform leaves out groups of equal rewards, from which loss.advantages {self.loss.advantages} learns; "
            "set it to false",
        )
        require(
            self.sampling.refill == 0 or self.loss.filter_uniform,
            "sampling.refill replaces groups of equal rewards, which loss.filter_uniform false keeps; set one of them",
        )
        group_size = self.sampling.k + (0 if self.guidance.trigger == "never" else self.k_guided)
        require(
            group_size >= 2 or self.loss.advantages != "grpo",
            "sampling.k is 1 and nothing is guided: a group of one rollout has no group-relative advantage; raise sampling.k",
        )

    @property
    def k_guided(self) -> int:
        """Guided rollouts per triggered problem."""
        return self.guidance.k_guided or self.sampling.k
