"""`guide sft`."""

from dataclasses import dataclass, field
from typing import Literal

from guide_rl.config.checks import require, require_range
from guide_rl.config.shared import CheckpointsConfig, ModelConfig, PromptsConfig


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
        require_range(self, lambda v: v >= 1, "at least 1", *at_least_1)
        require_range(self, lambda v: v > 0, "above 0", "epochs", "learning_rate")
        require_range(self, lambda v: v >= 0, "at least 0", "warmup_steps", "seed")
        require(
            self.batch_size % self.microbatch_size == 0,
            f"microbatch_size ({self.microbatch_size}) must divide batch_size ({self.batch_size})",
        )
