"""Model and tokenizer, ready to train: precision, dropout off, LoRA, and what must be refused."""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guide_rl.config import ModelConfig
from guide_rl.prompts import load_tokenizer
from guide_rl.run_folder import SHARDS, RunFolder, as_model


@dataclass(frozen=True)
class Policy:
    """A causal language model with its tokenizer.

    `model` is what is trained and saved (a PeftModel with LoRA); `causal` is the transformers model inside it,
    `backbone` that without the output head, and `head` the output head.
    """

    model: Any
    tokenizer: Any

    @property
    def causal(self) -> Any:
        """The transformers causal language model, without peft's wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def backbone(self) -> Any:
        """The model without its output head: token ids -> hidden states."""
        return self.causal.base_model

    @property
    def head(self) -> Any:
        """The output head: hidden states -> logits, before any softcap."""
        return self.causal.get_output_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return torch.device(self.causal.device)


def load_policy(config: ModelConfig, *, device: torch.device, seed: int, checkpoint: Path | None = None) -> Policy:
    """Load the recipe's model in float32 with dropout off, or the state of it that `checkpoint` holds.

    Args:
        config: the recipe's `model` section.
        device: where it shall lie.
        seed: seed of new LoRA weights.
        checkpoint: a checkpoint folder of a run with this recipe, to resume from.

    With LoRA in bfloat16, the frozen matrices are stored in bfloat16: autocast would cast them at every use, to the
    same numbers.

    Raises:
        FileNotFoundError: model.path is a folder without a model.
        OSError: the model cannot be had from the hub, or is broken; names model.path.
        ValueError: it is not a causal language model that can be trained here.
    """
    from transformers import AutoModelForCausalLM

    path = os.path.expanduser(config.path)
    source = path if checkpoint is None or config.lora is not None else str(checkpoint)
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    with quiet_transformers(), naming_model_path(source):
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="sdpa", **options)
        if checkpoint is None and (Path(path) / "adapter_config.json").is_file():
            from peft import AutoPeftModelForCausalLM

            # Another run's LoRA checkpoint: start from its merged weights.
            model = AutoPeftModelForCausalLM.from_pretrained(path, dtype=torch.float32).merge_and_unload()
            model.requires_grad_(True)
        tokenizer = load_tokenizer(path if checkpoint is None else str(checkpoint), **options)
    model = model.to(device)  # type: ignore[arg-type]
    if config.lora is not None:
        model = _with_lora(model, config, seed, checkpoint)
        _store_frozen_matrices(Policy(model, tokenizer).backbone, precision(config, device))
    disable_dropout(model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Policy(model, tokenizer)


@contextlib.contextmanager
def naming_model_path(path: str) -> Iterator[None]:
    """Say what is wrong with model.path: at once for what looks like a folder, else as the hub says it."""
    from transformers.utils import cached_file

    folder, is_folder = Path(path), Path(path).is_dir()
    looks_local = is_folder or path.startswith(("/", ".")) or path.count("/") > 1
    if looks_local and not holds_model(folder):
        in_run = folder / "model" if holds_model(folder / "model") else RunFolder(folder).latest_checkpoint()
        sharded = (folder / SHARDS).is_dir()
        hint = ""
        if in_run or sharded:
            hint = f"; it is a {'checkpoint' if sharded else 'run'}, so give {as_model(in_run or folder)}"
        raise FileNotFoundError(f"model.path {path}: no such model folder (it has no config.json){hint}")
    try:
        if not is_folder:  # one request for all: loading would retry for each of several files
            cached_file(path, "config.json", _raise_exceptions_for_missing_entries=False)
        yield
    except OSError as error:
        advice = "" if is_folder else " Check the name, the network and HF_HUB_OFFLINE, or give a folder."
        raise OSError(f"model.path {path}: {' '.join(str(error).splitlines()[:2])}{advice}") from error


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a model or an adapter in Hugging Face format."""
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout rate to 0: old and new log-probs must come from the same function."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def pick_device(config: ModelConfig) -> torch.device:
    """Where the recipe wants the model; ValueError when it asks for a GPU that is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("model.device is cuda but torch sees no CUDA device; set model.device to auto or cpu")
    use_cuda = config.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")


def precision(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype of the matrix products: bfloat16 where asked for, or by default on a CUDA device that has it."""
    if config.dtype == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32


def autocast(config: ModelConfig, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context in which matrix products run in the recipe's precision."""
    dtype = precision(config, device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


@contextlib.contextmanager
def explain_out_of_memory(knob: str) -> Iterator[None]:
    """Turn running out of memory into an error that says which knob to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        explained = str(error).startswith("out of memory")
        if not explained and (not isinstance(error, RuntimeError) or _says_out_of_memory(error)):
            raise MemoryError(
                f"out of memory: lower {knob} (a run goes on with --resume RUN field=value). {error}"
            ) from error
        raise


def _says_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory; on a CPU it says so in words only."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def export(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a folder that `from_pretrained` loads without peft: LoRA weights are merged into a copy, in float32."""
    if hasattr(model, "merge_and_unload"):
        model = copy.deepcopy(model).float().merge_and_unload()
    save(model, tokenizer, folder)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer in Hugging Face format; with LoRA, the adapter."""
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _with_lora(model: Any, config: ModelConfig, seed: int, checkpoint: Path | None) -> Any:
    """The model with a new adapter, or with the one that the checkpoint holds."""
    from peft import LoraConfig as PeftLoraConfig
    from peft import PeftModel, get_peft_model

    if checkpoint is not None:
        return PeftModel.from_pretrained(model, str(checkpoint), is_trainable=True)
    assert config.lora is not None
    torch.manual_seed(seed)
    lora = PeftLoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        target_modules=config.lora.target_modules,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def _store_frozen_matrices(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Keep the frozen matrices under adapters in the dtype that autocast multiplies them in."""
    for module in backbone.modules():
        base = getattr(module, "base_layer", None)
        if isinstance(base, nn.Linear):
            base.to(dtype)


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Run matrices that are stored in bfloat16 in float32, one at a time: exact numbers outside of autocast."""
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight.dtype == torch.bfloat16:
            hooks.append(module.register_forward_pre_hook(_cast_to(torch.float32)))
            hooks.append(module.register_forward_hook(_cast_to(torch.bfloat16)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _cast_to(dtype: torch.dtype) -> Callable[..., None]:
    """A hook of a forward pass that casts the module's own weights."""

    def cast(module: nn.Module, *_: Any) -> None:
        module.to(dtype)

    return cast


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars for loading and saving off: the run has its own display."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
