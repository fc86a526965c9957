"""`guide evaluate`: which models, which benchmarks, and what is sampled."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from guide_rl.config.checks import require, require_range
from guide_rl.config.guidance import ChatConfig
from guide_rl.config.shared import GradingConfig, PromptsConfig


@dataclass(frozen=True)
class LoadingConfig:
    """How the models are loaded."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products: auto is bfloat16 where the device has it fast (CUDA), else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to sample."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; leave off unless you have read that code."""


@dataclass(frozen=True)
class EvaluateRecipe:
    """`guide evaluate`: models x benchmarks -> graded rollouts and pass@k."""

    models: dict[str, str]
    """Name -> a model folder, a checkpoint, a hub name, a run (its model/, else its newest checkpoint), a run's checkpoints folder (each of them, by its step); for sampler chat the endpoint's name of it."""
    benchmarks: dict[str, str]
    """Name -> a problem file (.jsonl), or a recipe of `guide problems` (.yaml), whose problems are made first where they are not there."""
    run: str = "runs/evaluation"
    """The run folder; the same command again goes on where it was, also with more models or benchmarks."""
    seed: int = 0
    """Seed of all sampling; a rollout depends on it, on its problem and on its number, not on what else is evaluated."""
    greedy_runs: int | None = None
    """Greedy rollouts a problem, for pass@1; null: 5 as in the paper, or 1 with sampler transformers, where they would all be the same; 0: none."""
    samples: int = 16
    """Rollouts a problem at `temperature`, for pass@k; 0: none."""
    k: int | None = None
    """The k of pass@k in the table, at most samples; null: the largest power of two that is."""
    guided: bool = False
    """Also sample each problem that has guidance with guidance in its prompt, `samples` times at `temperature`."""
    temperature: float = 1.0
    """Temperature of the samples."""
    top_p: float = 1.0
    """Nucleus sampling for the samples."""
    top_k: int = 0
    """Sample among the top_k likeliest tokens only; 0 means all."""
    max_tokens: int = 3072
    """Longest rollout, in tokens."""
    stop: list[str] = field(default_factory=list)
    """Strings that end a rollout."""
    batch_size: int = 128
    """Rows decoded at once (sampler transformers); more is faster until memory runs out."""
    sampler: Literal["transformers", "vllm", "chat"] = "transformers"
    """Who samples: this process through transformers or vLLM, or an OpenAI-compatible server (chat)."""
    model: LoadingConfig = field(default_factory=LoadingConfig)
    chat: ChatConfig | None = None
    """For sampler chat: the server, fields such as {base_url: http://127.0.0.1:8000/v1, api_key_env: null}. See --chat.help."""
    vllm: dict[str, Any] = field(default_factory=dict)
    """For sampler vllm: further settings of vllm.LLM, such as {tensor_parallel_size: 2}."""
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)

    def __post_init__(self) -> None:
        require(bool(self.models), "models is empty; name one, such as models={base: Qwen/Qwen2.5-Math-1.5B}")
        require(bool(self.benchmarks), "benchmarks is empty; name one, such as benchmarks={mine: data/mine.jsonl}")
        for section, values in (("models", self.models), ("benchmarks", self.benchmarks)):
            for name in values:
                require(
                    re.fullmatch(r"[\w .+-]+", name) is not None,
                    f"{section}: {name!r} must be made of letters, digits, spaces and . _ + -",
                )
        require_range(self, lambda v: v >= 1, "at least 1", "max_tokens", "batch_size", "k")
        require_range(self, lambda v: v >= 0, "at least 0", "greedy_runs", "samples", "top_k")
        require_range(self, lambda v: 0 <= v < 2**63, "from 0 to below 2**63", "seed")
        require_range(self, lambda v: 0 < v <= 1, "above 0 and at most 1", "top_p")
        require_range(
            self, lambda v: v >= 0.001, "at least 0.001 (greedy_runs are greedy by themselves)", "temperature"
        )
        require(all(self.stop), "stop holds an empty string; remove it")
        require(
            self.k is None or self.k <= self.samples,
            f"pass@{self.k} needs at least {self.k} rollouts a problem and samples is {self.samples}; raise samples or lower k",
        )
        require(self.greedy_runs != 0 or self.samples > 0, "greedy_runs and samples are both 0; raise one of them")
        require(not self.guided or self.samples > 0, "guided needs rollouts at a temperature; raise samples")
        require(
            (self.chat is not None) == (self.sampler == "chat"),
            "chat goes with sampler chat: set both, such as sampler=chat chat.base_url=http://127.0.0.1:8000/v1, or neither",
        )
        if self.chat is not None:
            self._check_chat(self.chat)
        require(not self.vllm or self.sampler == "vllm", "vllm holds settings of sampler vllm; set that, or drop them")

    def _check_chat(self, chat: ChatConfig) -> None:
        """Refuse settings of the server that are the recipe's."""
        require(not chat.model, "chat.model is set, and models has the names of the models; remove it")
        for name, usual in (("temperature", 0.0), ("max_tokens", 1024)):
            require(
                getattr(chat, name) in (None, usual),
                f"chat.{name} is set; set {name} of this recipe, or null for a server that takes none",
            )
        own = sorted({"seed", "stop", "top_p", "top_k"} & set(chat.parameters))
        require(not own, f"chat.parameters holds {', '.join(own)}, which this recipe sends itself; remove it")
        require(
            self.prompts.chat_template is None,
            "prompts.chat_template is set, and a server has its own; remove it, or set it where the server starts",
        )

    @property
    def runs_of_greedy(self) -> int:
        """Greedy rollouts a problem."""
        return self.greedy_runs if self.greedy_runs is not None else 1 if self.sampler == "transformers" else 5

    @property
    def k_shown(self) -> int:
        """The k of pass@k in the table; 0 without samples."""
        return self.k or (1 << self.samples.bit_length() >> 1)
