"""What several stages share: the policy, prompts, grading, checkpoints."""

from dataclasses import dataclass
from typing import Literal

from guide_rl.config.checks import require, require_range
from guide_rl.config.texts import GUIDED_TEMPLATE, SYSTEM_PROMPTS


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
        require_range(self, lambda v: v >= 1, "at least 1", "rank", "alpha", prefix="model.lora.")


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
        require(
            self.system in SYSTEM_PROMPTS or len(self.system.split()) != 1,
            f"prompts.system {self.system} is no named system prompt ({', '.join(SYSTEM_PROMPTS)}) and too short to be the text of one",
        )
        for name in ("{question}", "{guidance}"):
            require(
                self.guided_template.count(name) == 1,
                f"prompts.guided_template must hold {name} exactly once, so that plain and guided prompts differ by the guidance only",
            )
        require_range(self, lambda v: v >= 1, "at least 1", "max_tokens", prefix="prompts.")


@dataclass(frozen=True)
class GradingConfig:
    """How rollouts are graded."""

    workers: int = 2
    """Worker processes."""
    timeout_s: float = 5.0
    """Hard limit for one grading, in seconds; what outlasts it is wrong."""
    memory_mb: int = 2048
    """Hard limit on a worker's address space, in MiB; what exceeds it is wrong."""
    run_untrusted_code_without_sandbox: bool = False
    """Run the code that the model writes with all the rights of your user, outside of any sandbox; only where nothing can be lost."""
    truncated: Literal["wrong", "masked"] = "wrong"
    """Rollouts cut off by the length limit: graded wrong, or graded wrong and left out of the loss."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: v >= 1, "at least 1", "workers", prefix="grading.")
        require_range(self, lambda v: v > 0, "above 0", "timeout_s", prefix="grading.")
        require_range(self, lambda v: v >= 256, "at least 256", "memory_mb", prefix="grading.")


@dataclass(frozen=True)
class CheckpointsConfig:
    """What is kept."""

    every: int = 50
    """Save every so many steps, and after the last."""
    keep_last: int = 2
    """How many of the newest checkpoints stay; the best by held-out pass@1 stays besides."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: v >= 1, "at least 1", "every", "keep_last", prefix="checkpoints.")
