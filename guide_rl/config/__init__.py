"""Every knob: one frozen record a stage, a sentence under each field (which is its --help).

A recipe is a YAML file with the fields of `TrainRecipe`, `SFTRecipe`, `ProblemsRecipe`, `GuidanceRecipe` or `EvaluateRecipe`. The
defaults are the paper's settings where the paper has one. Contradictions fail here, while parsing, with the field and what to do.
"""

from guide_rl.config.evaluate import EvaluateRecipe, LoadingConfig
from guide_rl.config.guidance import ChatConfig, GuidanceRecipe
from guide_rl.config.problems import DuplicatesConfig, GeneratorConfig, ProblemsRecipe, SourceConfig
from guide_rl.config.sft import SFTRecipe
from guide_rl.config.shared import CheckpointsConfig, GradingConfig, LoraConfig, ModelConfig, PromptsConfig
from guide_rl.config.texts import CHAT_TEMPLATES, GUIDED_TEMPLATE, SYSTEM_PROMPTS, TEACHER_PROMPT
from guide_rl.config.train import (
    BudgetConfig,
    CriticConfig,
    EvaluationConfig,
    GuidanceConfig,
    LossConfig,
    OptimizerConfig,
    ProblemsConfig,
    SamplingConfig,
    TrainRecipe,
)

__all__ = [
    "CHAT_TEMPLATES",
    "GUIDED_TEMPLATE",
    "SYSTEM_PROMPTS",
    "TEACHER_PROMPT",
    "BudgetConfig",
    "ChatConfig",
    "CheckpointsConfig",
    "CriticConfig",
    "DuplicatesConfig",
    "EvaluateRecipe",
    "EvaluationConfig",
    "GeneratorConfig",
    "GradingConfig",
    "GuidanceConfig",
    "GuidanceRecipe",
    "LoadingConfig",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ProblemsConfig",
    "ProblemsRecipe",
    "PromptsConfig",
    "SFTRecipe",
    "SamplingConfig",
    "SourceConfig",
    "TrainRecipe",
]
