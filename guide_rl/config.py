"""Every knob: one frozen record a stage, a sentence under each field (which is its --help).

A recipe is a YAML file with the fields of `TrainRecipe` or `SFTRecipe`. The defaults are the paper's
settings where the paper has one. Contradictions fail here, while parsing, with the field and what to do.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

SYSTEM_PROMPTS = {
    "none": "",
    "thought_solution": (
        "Your task is to follow a systematic, thorough reasoning process before providing the final solution. "
        "This involves analyzing, summarizing, exploring, reassessing, and refining your thought process through "
        "multiple iterations. Structure your response into two sections: Thought and Solution. In the Thought "
        'section, present your reasoning using the format: "<think>\n {thoughts} </think>\n". Each thought should '
        "include detailed analysis, brainstorming, verification, and refinement of ideas. After "
        '"</think>\n," in the Solution section, provide the final, logical, and accurate answer, clearly derived '
        "from the exploration in the Thought section. If applicable, include the answer in \\boxed{} for "
        "closed-form results like multiple choices or mathematical solutions."
    ),
}
"""Named system prompts; `thought_solution` is the paper's (appendix I.2)."""

CHAT_TEMPLATES = {
    "think_answer": (
        "A conversation between user and assistant. The user asks a question, and the assistant solves it. "
        "The assistant first thinks about the reasoning process in the mind and then provides the user with the "
        "answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> "
        "tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
        "User: {{ messages[-1]['content'] }} Assistant:"
    ),
}
"""Named Jinja chat templates for base models; `think_answer` is the paper's (appendix H)."""

GUIDED_TEMPLATE = (
    "{question}\nA hint to the problem is provided below:\n[HINT_START]\n{guidance}\n[HINT_END]\n"
    "Consider the hint but start your solution from scratch and do not directly reference the hint "
    '(e.g. avoid phrases like "using the hint").'
)
"""The paper's layout of a guided prompt (appendix G, table 7)."""


def _require(ok: bool, message: str) -> None:
    """Raise ValueError(message) unless ok."""
    if not ok:
        raise ValueError(message)


def _require_range(record: object, test: Callable[[float], bool], bounds: str, *names: str, prefix: str = "") -> None:
    """Raise ValueError naming the first of the fields whose value fails the test; None passes."""
    for name in names:
        value = getattr(record, name)
        _require(value is None or test(value), f"{prefix}{name} must be {bounds}, not {value}")


@dataclass(frozen=True)
class LoraConfig:
    """Train a low-rank adapter (through peft) instead of all weights."""

    rank: int = 16
    """Rank of the update."""
    alpha: int = 32
    """Scale of the update: alpha / rank."""
    target_modules: str | list[str] = "all-linear"
    """Which modules get an adapter, as peft names them."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 1, "at least 1", "rank", "alpha", prefix="model.lora.")


@dataclass(frozen=True)
class ModelConfig:
    """The policy."""

    path: str
    """A Hugging Face hub name or a local folder, for instance another run's `checkpoints/step-000100`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products: auto is bfloat16 where the device has it fast (CUDA), else float32; the weights that the optimizer updates stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train and sample."""
    lora: LoraConfig | None = None
    """Train an adapter instead of all weights: null, or fields such as {rank: 16}; also model.lora.rank=16. See --model.lora.help."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; leave off unless you have read that code."""


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
class PromptsConfig:
    """Problem to prompt."""

    system: str = "none"
    """System prompt: the name of one in `config.SYSTEM_PROMPTS` (none, thought_solution), or the text itself, of two words or more."""
    guided_template: str = GUIDED_TEMPLATE
    """The guided user message; must hold {question} and {guidance}, and add to the question only."""
    chat_template: str | None = None
    """For a model without a chat template: the name of one in `config.CHAT_TEMPLATES` (think_answer), a file, or Jinja text."""
    max_tokens: int = 1024
    """Longest prompt, plain or guided, in tokens."""
    too_long: Literal["skip", "fail"] = "skip"
    """What to do with a problem whose plain prompt is longer: leave it out (counted) or stop. A guided prompt that is too long makes its problem one without guidance (counted), or stops."""

    def __post_init__(self) -> None:
        _require(
            self.system in SYSTEM_PROMPTS or len(self.system.split()) != 1,
            f"prompts.system {self.system} is no named system prompt ({', '.join(SYSTEM_PROMPTS)}) and too short to be the text of one",
        )
        for name in ("{question}", "{guidance}"):
            _require(
                self.guided_template.count(name) == 1,
                f"prompts.guided_template must hold {name} exactly once, so that plain and guided prompts differ by the guidance only",
            )
        _require_range(self, lambda v: v >= 1, "at least 1", "max_tokens", prefix="prompts.")


@dataclass(frozen=True)
class SamplingConfig:
    """How rollouts are sampled."""

    k: int = 8
    """Plain rollouts per problem."""
    temperature: float = 1.0
    """Sampling temperature; log-probs are at this temperature everywhere."""
    max_tokens: int = 3072
    """Longest rollout, in tokens."""
    stop: list[str] = field(default_factory=list)
    """Strings that end a rollout (finish reason `stop`); they are cut from the text, not from the tokens."""
    batch_size: int = 128
    """Rows decoded at once; more is faster until memory runs out."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 1, "at least 1", "k", "max_tokens", "batch_size", prefix="sampling.")
        _require_range(
            self,
            lambda v: v > 0,
            "above 0 in training (evaluation is greedy by itself)",
            "temperature",
            prefix="sampling.",
        )
        _require(all(self.stop), "sampling.stop holds an empty string; remove it")


@dataclass(frozen=True)
class GuidanceConfig:
    """Who gets guidance."""

    trigger: Literal["never", "all_incorrect", "mostly_incorrect", "always", "only_guided"] = "all_incorrect"
    """When a problem gets guided rollouts: never (GRPO), all plain rollouts wrong, plain accuracy below 0.25, always, or guided rollouts only."""
    k_guided: int | None = None
    """Guided rollouts per triggered problem; null means sampling.k."""
    keep_guided: Literal["all", "successful"] = "all"
    """Which guided rollouts join the group."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 1, "at least 1 or null", "k_guided", prefix="guidance.")


@dataclass(frozen=True)
class GradingConfig:
    """How rollouts are graded."""

    workers: int = 2
    """Worker processes."""
    timeout_s: float = 5.0
    """Hard limit for one grading, in seconds; what outlasts it is wrong."""
    memory_mb: int = 2048
    """Hard limit on a worker's address space, in MiB; what exceeds it is wrong."""
    truncated: Literal["wrong", "masked"] = "wrong"
    """Rollouts cut off by the length limit: graded wrong, or graded wrong and left out of the loss."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 1, "at least 1", "workers", prefix="grading.")
        _require_range(self, lambda v: v > 0, "above 0", "timeout_s", prefix="grading.")
        _require_range(self, lambda v: v >= 256, "at least 256", "memory_mb", prefix="grading.")


@dataclass(frozen=True)
class LossConfig:
    """The objective (paper, equation 6) and its switches."""

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
        at_least_0 = ("clip_low", "clip_high", "beta", "entropy_coef")
        _require_range(self, lambda v: v >= 0, "at least 0", *at_least_0, prefix="loss.")
        _require_range(self, lambda v: v > 0, "above 0", "ratio_cap", "reshape_constant", prefix="loss.")
        _require_range(self, lambda v: 0 < v < 100, "between 0 and 100", "reshape_percentile", prefix="loss.")
        _require(self.clip_low < 1, f"loss.clip_low must be below 1, not {self.clip_low}")
        _require_range(self, lambda v: v >= 1, "at least 1 or null", "reference_every", prefix="loss.")
        _require(
            self.reference_every is None or self.beta > 0,
            "loss.reference_every refreshes a reference policy, which exists only with loss.beta > 0; set one of them",
        )
        _require(
            self.reshape == "none" or self.guided_ratio in ("sampling", "plain", "in_context"),
            f"loss.reshape {self.reshape} shapes an importance ratio, and loss.guided_ratio {self.guided_ratio} leaves none "
            "to shape; set loss.reshape to none or loss.guided_ratio to sampling",
        )
        _require(
            not (self.clip_guided and self.reshape != "none"),
            f"loss.clip_guided cannot clip ratios that loss.reshape {self.reshape} moved away from 1; turn one off",
        )
        _require(
            not (self.clip_guided and self.guided_ratio in ("none", "truncated")),
            f"loss.clip_guided has nothing to clip with loss.guided_ratio {self.guided_ratio}; set it to false",
        )
        _require(
            not (self.old_logprobs == "sampler" and self.guided_ratio == "plain"),
            "loss.guided_ratio plain needs old log-probs of guided rows under the plain prompt, which no sampler has; "
            "set loss.old_logprobs to recomputed",
        )


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
        _require_range(self, lambda v: v >= 1, "at least 1", *at_least_1, prefix="optimizer.")
        _require_range(self, lambda v: v >= 0, "at least 0", "warmup_steps", "weight_decay", prefix="optimizer.")
        _require_range(self, lambda v: v > 0, "above 0", "learning_rate", "max_grad_norm", prefix="optimizer.")


@dataclass(frozen=True)
class BudgetConfig:
    """Stop before the last step: methods are compared at an equal budget, not at equal steps."""

    rollouts: int | None = None
    """Stop after the step that reaches this many sampled rollouts, plain and guided; null means no limit."""
    tokens: int | None = None
    """Stop after the step that reaches this many sampled tokens; null means no limit."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 1, "at least 1 or null", "rollouts", "tokens", prefix="budget.")


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
        _require_range(self, lambda v: v >= 0, "at least 0", "every", "samples", "top_k", prefix="evaluation.")
        _require_range(self, lambda v: v >= 1, "at least 1 or null", "max_tokens", prefix="evaluation.")
        _require_range(self, lambda v: 0 < v <= 1, "above 0 and at most 1", "top_p", prefix="evaluation.")


@dataclass(frozen=True)
class CheckpointsConfig:
    """What is kept."""

    every: int = 50
    """Save every so many steps, and after the last."""
    keep_last: int = 2
    """How many of the newest checkpoints stay; the best by held-out pass@1 stays besides."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 1, "at least 1", "every", "keep_last", prefix="checkpoints.")


@dataclass(frozen=True)
class TrainRecipe:
    """`guide train`: GRPO, Filter-GRPO or Guide-GRPO on one device."""

    model: ModelConfig
    problems: ProblemsConfig
    run: str = "runs/train"
    """The run folder; must not hold a run yet."""
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
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=list)
    """Where metrics go besides metrics.jsonl, through accelerate; each needs its own package."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 1, "at least 1", "steps", "problems_per_step")
        _require_range(self, lambda v: v >= 0, "at least 0", "seed")
        minibatch = self.optimizer.problems_per_minibatch
        _require(
            minibatch is None or self.problems_per_step % minibatch == 0,
            f"optimizer.problems_per_minibatch ({minibatch}) must divide problems_per_step ({self.problems_per_step})",
        )
        _require(
            self.evaluation.every == 0 or self.problems.evaluation is not None,
            "evaluation.every is set but problems.evaluation names no file; set it or set evaluation.every to 0",
        )
        _require(
            self.guidance.trigger != "only_guided" or self.loss.baseline != "plain",
            "loss.baseline plain needs plain rollouts, and guidance.trigger only_guided samples none; set loss.baseline to joint",
        )
        _require(
            not (self.guidance.trigger == "never" and self.problems.require_guidance),
            "problems.require_guidance asks for guidance that guidance.trigger never does not use; drop one of them",
        )
        group_size = self.sampling.k + (0 if self.guidance.trigger == "never" else self.k_guided)
        _require(
            group_size >= 2,
            "sampling.k is 1 and nothing is guided: a group of one rollout has no group-relative advantage; raise sampling.k",
        )

    @property
    def k_guided(self) -> int:
        """Guided rollouts per triggered problem."""
        return self.guidance.k_guided or self.sampling.k


@dataclass(frozen=True)
class SFTRecipe:
    """`guide sft`: supervised fine-tuning on worked solutions, through TRL's SFTTrainer."""

    model: ModelConfig
    problems: str
    """JSON lines file of problems with a `solution` each."""
    run: str = "runs/sft"
    """The folder for the trained model; must not hold a run yet."""
    seed: int = 0
    """Seed of data order and of new weights."""
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    context: Literal["plain", "guided"] = "plain"
    """The prompt before the solution: plain, or with the guidance where a row has one."""
    epochs: float = 2.0
    """Passes over the data."""
    batch_size: int = 32
    """Rows per optimizer step."""
    microbatch_size: int = 4
    """Rows per forward and backward pass; lower it when memory runs out."""
    learning_rate: float = 1e-5
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up: constant, or falling to 0 at the last step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly."""
    max_tokens: int = 4092
    """Longest row (prompt and solution), in tokens; longer rows are left out and counted."""
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)

    def __post_init__(self) -> None:
        at_least_1 = ("batch_size", "microbatch_size", "max_tokens")
        _require_range(self, lambda v: v >= 1, "at least 1", *at_least_1)
        _require_range(self, lambda v: v > 0, "above 0", "epochs", "learning_rate")
        _require_range(self, lambda v: v >= 0, "at least 0", "warmup_steps", "seed")
        _require(
            self.batch_size % self.microbatch_size == 0,
            f"microbatch_size ({self.microbatch_size}) must divide batch_size ({self.batch_size})",
        )


@dataclass(frozen=True)
class ChatConfig:
    """An OpenAI-compatible chat endpoint, and how it is asked."""

    model: str
    """The model's name, as the endpoint knows it."""
    base_url: str = "https://api.openai.com/v1"
    """Where the endpoint is, up to and without /chat/completions; a local server's is like http://127.0.0.1:8000/v1."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """The environment variable that holds the API key (the key itself is never written anywhere); null for a server that takes none."""
    temperature: float | None = 0.0
    """Sampling temperature; null leaves it to the endpoint (some reasoning models accept no other)."""
    max_tokens: int | None = 1024
    """Longest reply, in tokens; null leaves it to the endpoint."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Further fields of each request, for instance {seed: 1} or {max_completion_tokens: 4096}."""
    concurrency: int = 16
    """Requests in flight at once."""
    requests_per_minute: int | None = None
    """Send at most this many requests a minute, evenly spaced; null means no limit of ours."""
    tokens_per_minute: int | None = None
    """Use at most this many tokens a minute, prompts and replies; null means no limit of ours."""
    timeout_s: float = 120.0
    """Longest wait for a whole reply, in seconds; then the request is tried again."""
    tries: int = 6
    """How often a request is tried on rate limits, server errors, timeouts, cut connections and broken replies."""
    backoff_s: float = 1.0
    """The pause after the first failed try, in seconds; it doubles each time, less up to half of it by chance. A longer Retry-After is honoured."""
    backoff_max_s: float = 60.0
    """The longest such pause, in seconds."""
    stop_after_failures: int | None = 20
    """Stop everything when this many requests in a row have failed for good: the endpoint is down, or refuses what the recipe asks for; null never stops."""
    prompt_price: float | None = None
    """Price of a million prompt tokens; null means unknown."""
    completion_price: float | None = None
    """Price of a million reply tokens; null means unknown."""

    def __post_init__(self) -> None:
        at_least_1 = ("max_tokens", "concurrency", "requests_per_minute", "tokens_per_minute", "tries")
        _require_range(self, lambda v: v >= 1, "at least 1", *at_least_1, "stop_after_failures", prefix="chat.")
        at_least_0 = ("temperature", "backoff_s", "backoff_max_s", "prompt_price", "completion_price")
        _require_range(self, lambda v: v >= 0, "at least 0", *at_least_0, prefix="chat.")
        _require_range(self, lambda v: v > 0, "above 0", "timeout_s", prefix="chat.")
        _require(bool(self.model.strip()), "chat.model is empty; name the model as the endpoint knows it")
        _require(
            re.fullmatch(r"https?://[^\s/@?#]+[^\s@?#]*", self.base_url) is not None,
            "chat.base_url must be like http://127.0.0.1:8000/v1: http or https, and no user name, password or query in it",
        )
        _require(
            self.api_key_env is None or re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env) is not None,
            "chat.api_key_env must be the name of an environment variable, in capitals (OPENAI_API_KEY); "
            "the key itself belongs into that variable only",
        )
        own = sorted({"model", "messages", "n", "stream", "temperature", "max_tokens"} & set(self.parameters))
        _require(
            not own,
            f"chat.parameters cannot hold {', '.join(own)}; one reply is read, whole, and the rest has fields of its own",
        )


@dataclass(frozen=True)
class GeneratorConfig:
    """One procedural data set of reasoning-gym."""

    name: str
    """Its name in reasoning-gym, such as countdown."""
    size: int = 1000
    """How many problems to make."""
    seed: int | None = None
    """Its seed; problem i is made from seed + i, so that ranges that overlap hold the same problems. Null means the recipe's."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Its own settings, such as {min_numbers: 4}."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 1, "at least 1", "size", prefix="generators.")


@dataclass(frozen=True)
class SourceConfig:
    """Where rows come from, and how they become problems."""

    path: str = ""
    """A file (.jsonl, .parquet, .csv), a local folder of a data set, or else a Hugging Face hub name."""
    kind: Literal["auto", "jsonl", "parquet", "csv", "hub", "reasoning_gym", "champ"] = "auto"
    """How to read it; auto tells by the path. reasoning_gym and champ are packages and take no path."""
    config: str | None = None
    """The hub data set's configuration (subset)."""
    split: str = "train"
    """The hub data set's split."""
    revision: str | None = None
    """The hub data set's commit or branch; null means the newest."""
    streaming: bool = False
    """Read over the network while working instead of downloading all first; for data sets of which `limit` takes a part."""
    generators: list[GeneratorConfig] = field(default_factory=list)
    """For reasoning_gym: the data sets to make."""
    columns: dict[str, str | list[str]] = field(default_factory=dict)
    """Field of the problem (also metadata.NAME) -> column, or [column, rule, ...]; a column with braces is a text with {column} in it. None: the fields by their own names."""
    constants: dict[str, str] = field(default_factory=dict)
    """Field of the problem -> the text that it has in every row, such as {grader: exact}; stratum is the source's name otherwise."""
    choices: list[str] = field(default_factory=list)
    """Columns of a multiple-choice question, the right one first; adds the columns `choices` (shuffled by the seed, a letter each) and `letter`."""
    where: dict[str, Any] = field(default_factory=dict)
    """Column -> the value, or the list of values, that a row must have."""
    limit: int | None = None
    """Stop after so many problems; null means all."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 1, "at least 1 or null", "limit", prefix="sources.")
        packaged = self.kind in ("reasoning_gym", "champ")
        _require(packaged or bool(self.path), "sources: a source needs a path: a file, a folder or a hub name")
        _require(
            not (packaged and self.path), f"sources: kind {self.kind} is a package; remove path, or set kind to auto"
        )
        _require(
            bool(self.generators) == (self.kind == "reasoning_gym"),
            "sources: kind reasoning_gym goes with generators, such as [{name: countdown, size: 100}]; set both or neither",
        )
        _require(len(self.choices) != 1, "sources.choices needs two columns or more, the right choice first")


@dataclass(frozen=True)
class DuplicatesConfig:
    """Which questions count as the same."""

    exact: bool = True
    """Reject questions that an earlier one spells alike, but for case, spaces, `$` and Unicode forms."""
    near: bool = True
    """Reject questions whose shingles overlap with an earlier one's; turn off for procedural problems and evaluation sets."""
    threshold: float = 0.7
    """Smallest Jaccard similarity of two near-duplicates' shingles; also for decontamination."""
    shingle: int = 3
    """Words (or signs) of a shingle."""
    same_answer: bool = True
    """Near-duplicates must have answers of the same spelling; otherwise they are variants and both stay. Decontamination does not look at answers."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: 0.5 <= v <= 1, "between 0.5 and 1", "threshold", prefix="duplicates.")
        _require_range(self, lambda v: v >= 1, "at least 1", "shingle", prefix="duplicates.")


@dataclass(frozen=True)
class ProblemsRecipe:
    """`guide problems`: rows of data sets -> files of problems."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """Name -> where rows come from. The name is the stratum and the beginning of every id."""
    out: str = "data/problems"
    """The folder to write; one that another recipe filled is left alone."""
    seed: int = 0
    """Seed of splits, of the order of choices and of procedural problems."""
    splits: dict[str, float] = field(default_factory=dict)
    """Name of a file -> how many problems (above 1) or which share of the others (up to 1), such as {held_out: 500, train: 1}; none: one file, problems.jsonl."""
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    against: list[str] = field(default_factory=list)
    """Evaluation sets: files of problems, or recipes of this kind. Problems that match one of theirs, exactly or nearly, are rejected."""
    model: str | None = None
    """A hub name or a local folder: its tokenizer measures prompts, and longer ones than prompts.max_tokens are rejected. Null: no limit."""
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    unreadable_answers: Literal["unchecked", "keep", "reject"] = "keep"
    """Reference answers that their own grader cannot read: not looked for, counted, or rejected."""
    grading: GradingConfig = field(default_factory=GradingConfig)

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 0, "at least 0", "seed")
        for name, size in self.splits.items():
            _require(
                bool(name) and set(name) <= _FILE_NAME, f"splits: {name!r} must be made of letters, digits, - and _"
            )
            _require(name not in ("rejected", "summary"), f"splits: {name} is the name of another file; choose another")
            _require(
                size > 0 and (size <= 1 or size == int(size)), f"splits.{name} must be a share or a count, not {size}"
            )
        shares = [size for size in self.splits.values() if size <= 1]
        _require(not shares or abs(sum(shares) - 1) < 1e-6, f"splits: shares must add up to 1, not {sum(shares):g}")
        for name in self.sources:
            _require(
                bool(name) and set(name) <= _FILE_NAME, f"sources: {name!r} must be made of letters, digits, - and _"
            )


_FILE_NAME = {*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"}


TEACHER_PROMPT = """You are an expert math tutor with years of experience helping students understand difficult concepts without solving problems for them. Your task is to analyze a math problem and its reference solution, then create a series of helpful hints that guide the student toward discovering the solution independently.
[question]: {question}
[reference_answer]: {reference_answer}
When creating hints, follow these principles:
- Start with conceptual hints that point to relevant mathematical principles
- Progress to more specific strategic hints about approach
- Offer guidance on potential roadblocks without revealing key steps
- Never provide direct calculations or formulas that would bypass the student’s own reasoning
- Include 3-5 hints in ascending order of directness
[guidance]:
1. [Conceptual hint focusing on relevant mathematical principles]
2. [Strategic hint about approach without revealing steps]
3. [Hint addressing common misconception or roadblock]
4. [More direct hint if needed]
5. [Final hint that guides toward the solution method without providing it]"""
"""What the teacher is asked (the paper's, appendix G)."""


@dataclass(frozen=True)
class GuidanceRecipe:
    """`guide guidance`: a teacher writes guidance for every problem of a file."""

    problems: str
    """JSON lines file of problems; the teacher sees the solution, or the answer where there is none."""
    out: str = "data/guidance"
    """The folder to write; the same recipe may be run on it again."""
    writer: Literal["teacher", "policy"] = "teacher"
    """Who writes: a chat endpoint (chat), or the policy itself from the reference solution (model)."""
    chat: ChatConfig | None = None
    """The teacher's endpoint: fields such as {model: gpt-4o}; also chat.model=gpt-4o. See --chat.help."""
    model: ModelConfig | None = None
    """The policy that writes its own guidance: fields such as {path: runs/sft/model}. See --model.help."""
    batch_size: int = 16
    """Replies that the policy writes at once."""
    max_tokens: int = 1024
    """Longest reply of the policy, in tokens; the teacher's is chat.max_tokens."""
    chat_template: str | None = None
    """For a policy without a chat template: as prompts.chat_template in `guide train`."""
    prompt: str = TEACHER_PROMPT
    """What is asked; must hold {question} and {reference_answer}."""
    level: int | None = None
    """How many of the points become the guidance, weakest first; null means all. The others stay in metadata."""
    overwrite: bool = False
    """Ask for problems that have guidance already, too."""
    cache: str | None = None
    """Folder of stored replies and verdicts, which recipes may share; null means OUT/cache."""

    def __post_init__(self) -> None:
        _require_range(self, lambda v: v >= 1, "at least 1", "batch_size", "max_tokens")
        _require_range(self, lambda v: 1 <= v <= 5, "from 1 to 5, or null", "level")
        for name in ("{question}", "{reference_answer}"):
            _require(name in self.prompt, f"prompt must hold {name}, which the problem's own takes the place of")
        needed = "chat" if self.writer == "teacher" else "model"
        first = {"chat": "chat.model=gpt-4o", "model": "model.path=runs/sft/model"}[needed]
        _require(getattr(self, needed) is not None, f"writer {self.writer} needs {needed}; set it, such as {first}")
