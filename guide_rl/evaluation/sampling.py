"""The ways to sample from a model: in this process through transformers or vLLM, or on a server.

Each checks a model without loading it, so that what cannot work fails before anything is sampled, and then opens it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from guide_rl.chat.client import ChatClient
from guide_rl.chat.endpoint import api_key
from guide_rl.config import EvaluateRecipe, ModelConfig
from guide_rl.evaluation import PromptIds, Setting
from guide_rl.evaluation.benchmarks import Benchmark
from guide_rl.evaluation.models import EvaluatedModel
from guide_rl.prompts import Prompts, load_tokenizer, messages_of
from guide_rl.samplers.chat import ChatSampler
from guide_rl.types import Problem, Sampler


@dataclass(frozen=True)
class Asked:
    """What a model is asked."""

    problems: Mapping[str, Sequence[Problem]]
    """Benchmark -> its problems, without those that do not fit, and without guidance that does not fit."""
    digest: str | None
    """Stands for the model's files; None where they are out of reach."""
    notes: tuple[str, ...] = ()
    """What was left out."""


@dataclass(frozen=True)
class Opened:
    """A model that is ready."""

    sampler_for: Callable[[Setting, Sequence[Problem]], Sampler]
    """Setting and what will be asked -> an idle sampler."""
    prompt_ids: PromptIds
    """(problem, guided) -> token ids."""


class Models(Protocol):
    """One way to sample."""

    def check(self, model: EvaluatedModel, benchmarks: Sequence[Benchmark]) -> Asked:
        """What the model will be asked; raises ValueError or OSError, which name the model, where that cannot work."""
        ...

    def opened(self, model: EvaluatedModel) -> AbstractContextManager[Opened]:
        """A context in which the model is `Opened`."""
        ...


class TransformersModels:
    """Models that this process loads."""

    def __init__(self, recipe: EvaluateRecipe) -> None:
        self._recipe = recipe

    def check(self, model: EvaluatedModel, benchmarks: Sequence[Benchmark]) -> Asked:
        """Tokenizer, architecture, length of prompts."""
        from transformers import AutoConfig

        from guide_rl.policy import quiet_transformers
        from guide_rl.samplers.causal_lm import check_length

        recipe, options = self._recipe, {"trust_remote_code": self._recipe.model.trust_remote_code}
        with naming(model), quiet_transformers():
            try:
                config = AutoConfig.from_pretrained(_adapted(model.path) or model.path, **options)
                prompts = Prompts(load_tokenizer(model.path, **options), recipe.prompts)
            except OSError as error:
                advice = "check the name, the network and HF_HUB_OFFLINE, or give a folder"
                raise OSError(f"{' '.join(str(error).splitlines()[:2])}; {advice}") from error
            problems: dict[str, Sequence[Problem]] = {}
            notes: list[str] = []
            for benchmark in benchmarks:
                fitting, counts = prompts.fit(benchmark.problems)
                check_length(config.get_text_config(), counts.longest, recipe.max_tokens, knob="max_tokens")
                problems[benchmark.name] = fitting
                lost = {"problems": counts.too_long, "problems' guidance": counts.guidance_too_long}
                notes += [
                    f"{benchmark.name}: {count} {what} left out for {model} (prompt over prompts.max_tokens)"
                    for what, count in lost.items()
                    if count
                ]
            self._check_architecture(model, config)
        commit = getattr(config, "_commit_hash", None)
        return Asked(problems, model.fingerprint or commit, tuple(notes))

    def _check_architecture(self, model: EvaluatedModel, config: Any) -> None:
        """Refuse what `CausalLM` does, on a model without weights."""
        import torch
        from transformers import AutoModelForCausalLM

        from guide_rl.samplers.causal_lm import CausalLM

        with torch.device("meta"):
            CausalLM(AutoModelForCausalLM.from_config(config, trust_remote_code=self._recipe.model.trust_remote_code))

    @contextmanager
    def opened(self, model: EvaluatedModel) -> Iterator[Opened]:
        """Load the weights."""
        from guide_rl.policy import autocast, load_policy, pick_device
        from guide_rl.samplers.transformers import TransformersSampler

        recipe = self._recipe
        config = _model_config(recipe, model)
        with naming(model):
            device = pick_device(config)
            policy = load_policy(config, device=device, seed=0)
        prompts = Prompts(policy.tokenizer, recipe.prompts)

        def sampler_for(setting: Setting, problems: Sequence[Problem]) -> Sampler:
            return TransformersSampler(
                model=policy.model,
                tokenizer=policy.tokenizer,
                temperature=setting.temperature,
                max_tokens=recipe.max_tokens,
                stop=recipe.stop,
                batch_size=recipe.batch_size,
                top_p=recipe.top_p,
                top_k=recipe.top_k,
            )

        with autocast(config, device):
            yield Opened(sampler_for, prompts.ids)


class VLLMModels(TransformersModels):
    """Models that vLLM loads in this process.

    Raises:
        ValueError: vLLM is not installed.
    """

    def __init__(self, recipe: EvaluateRecipe) -> None:
        super().__init__(recipe)
        if find_spec("vllm") is None:
            raise ValueError(
                "sampler vllm needs the package vllm, which is not installed; install it (pip install vllm) or set sampler to "
                "transformers, or to chat with a vLLM server"
            )

    def _check_architecture(self, model: EvaluatedModel, config: Any) -> None:
        """Merged weights only; vLLM knows other architectures than we do."""
        if _adapted(model.path):
            raise ValueError(f"{model.path} is a LoRA adapter; merge it first: guide export {model.path} FOLDER")

    @contextmanager
    def opened(self, model: EvaluatedModel) -> Iterator[Opened]:
        """Load the weights into an engine of its own."""
        from guide_rl.policy import pick_device, precision
        from guide_rl.samplers.vllm import VLLMSampler, vllm_engine

        recipe = self._recipe
        config = _model_config(recipe, model)
        dtype = str(precision(config, pick_device(config))).removeprefix("torch.")
        tokenizer = load_tokenizer(model.path, trust_remote_code=config.trust_remote_code)
        prompts = Prompts(tokenizer, recipe.prompts)
        options = {"dtype": dtype, "trust_remote_code": config.trust_remote_code} | recipe.vllm
        with naming(model), vllm_engine(model.path, options) as engine:

            def sampler_for(setting: Setting, problems: Sequence[Problem]) -> Sampler:
                return VLLMSampler(
                    engine=engine,
                    tokenizer=tokenizer,
                    temperature=setting.temperature,
                    max_tokens=recipe.max_tokens,
                    stop=recipe.stop,
                    top_p=recipe.top_p,
                    top_k=recipe.top_k,
                )

            yield Opened(sampler_for, prompts.ids)


class ChatModels:
    """Models of an OpenAI-compatible server, known by their names.

    Raises:
        ValueError: the client is not installed, or there is no API key.
    """

    def __init__(self, recipe: EvaluateRecipe) -> None:
        assert recipe.chat is not None
        self._recipe, self._chat = recipe, recipe.chat
        if find_spec("openai") is None:
            raise ValueError("sampler chat needs the package openai: pip install 'guide-rl[guidance]'")
        api_key(self._chat.api_key_env)

    def check(self, model: EvaluatedModel, benchmarks: Sequence[Benchmark]) -> Asked:
        """Nothing is known of a server's model before it is asked; every problem is."""
        return Asked({benchmark.name: benchmark.problems for benchmark in benchmarks}, None)

    @contextmanager
    def opened(self, model: EvaluatedModel) -> Iterator[Opened]:
        """A client, one for each setting; its replies are stored in the run folder."""
        recipe = self._recipe
        cache = Path(recipe.run).expanduser() / "cache"
        cache.mkdir(exist_ok=True)
        extra = {
            "top_p": recipe.top_p if recipe.top_p < 1 else None,
            "top_k": recipe.top_k or None,
            "stop": recipe.stop or None,
        }
        sent = {name: value for name, value in extra.items() if value is not None}
        with ExitStack() as client:

            def sampler_for(setting: Setting, problems: Sequence[Problem]) -> Sampler:
                client.close()
                chat = replace(
                    self._chat,
                    model=model.path,
                    temperature=None if self._chat.temperature is None else setting.temperature,
                    max_tokens=None if self._chat.max_tokens is None else recipe.max_tokens,
                    parameters=sent | self._chat.parameters,
                )
                by_id = {problem.id: problem for problem in problems}
                return ChatSampler(
                    client.enter_context(ChatClient(chat, cache=cache / "replies.sqlite", empty=True)),
                    lambda name, guided: tuple(messages_of(by_id[name], recipe.prompts, guided=guided)),
                )

            yield Opened(sampler_for, lambda problem, guided: ())


WAYS: dict[str, Callable[[EvaluateRecipe], Models]] = {
    "transformers": TransformersModels,
    "vllm": VLLMModels,
    "chat": ChatModels,
}
"""Value of the recipe's `sampler` -> how models are sampled."""


@contextmanager
def naming(model: EvaluatedModel) -> Iterator[None]:
    """Say of an error which model it is about."""
    try:
        yield
    except (ValueError, OSError) as error:
        field = f"models.{model.name}"
        text = str(error).replace(f"model.path {model.path}: ", "")
        text = text if text.startswith(field) else f"{field} ({model.path}): {text}"
        raise (OSError if isinstance(error, OSError) else ValueError)(text) from error


def without_guidance(benchmark: Benchmark) -> Benchmark:
    """A benchmark whose guidance nobody will read, so that nothing in it can be wrong."""
    return replace(benchmark, problems=tuple(replace(problem, guidance=None) for problem in benchmark.problems))


def _model_config(recipe: EvaluateRecipe, model: EvaluatedModel) -> ModelConfig:
    """The recipe's `model` section, with the model."""
    loading = recipe.model
    return ModelConfig(model.path, loading.dtype, loading.device, trust_remote_code=loading.trust_remote_code)


def _adapted(path: str) -> str | None:
    """The model that a LoRA adapter adapts; None where the path is no adapter."""
    file = Path(path) / "adapter_config.json"
    return str(json.loads(file.read_text())["base_model_name_or_path"]) if file.is_file() else None
