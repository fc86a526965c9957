"""Model and tokenizer, ready to train: precision, dropout off, LoRA, and what must be refused."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guide_rl.config import ModelConfig


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

    Raises:
        OSError: the model is not found (transformers' message).
        ValueError: it is not a causal language model that can be trained here.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = config.path if checkpoint is None or config.lora is not None else str(checkpoint)
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(config.path if checkpoint is None else str(checkpoint), **options)
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="sdpa", **options)
        if checkpoint is None and (Path(config.path) / "adapter_config.json").is_file():
            from peft import AutoPeftModelForCausalLM

            # Another run's LoRA checkpoint: start from its merged weights.
            model = AutoPeftModelForCausalLM.from_pretrained(config.path, dtype=torch.float32).merge_and_unload()
            model.requires_grad_(True)
    model = model.to(device)  # type: ignore[arg-type]
    if config.lora is not None:
        model = _with_lora(model, config, seed, checkpoint)
    disable_dropout(model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Policy(model, tokenizer)


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


@contextlib.contextmanager
def explain_out_of_memory(knob: str) -> Iterator[None]:
    """Turn running out of memory into an error that says which knob to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise MemoryError(
                f"out of memory: lower {knob} (its value is in the run's recipe.yaml). {error}"
            ) from error
        raise


def export(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a folder that `from_pretrained` loads without peft: LoRA weights are merged into a copy."""
    if hasattr(model, "merge_and_unload"):
        import copy

        model = copy.deepcopy(model).merge_and_unload()
    save(model, tokenizer, folder)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer in Hugging Face format; with LoRA, the adapter."""
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def export_checkpoint(source: Path, folder: Path) -> None:
    """`guide export`: write a checkpoint (or a run's newest) as one plain model folder.

    Raises:
        FileNotFoundError: `source` is neither a checkpoint nor a run with one.
        FileExistsError: `folder` holds something already.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from guide_rl.run_folder import RunFolder

    if (source / "recipe.yaml").is_file():
        source = RunFolder.open(source).latest_checkpoint() or source
    if not any((source / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise FileNotFoundError(f"{source} holds no checkpoint; give a folder like runs/x/checkpoints/step-000100")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give another folder")
    with quiet_transformers():
        if (source / "adapter_config.json").is_file():
            from peft import AutoPeftModelForCausalLM

            model = AutoPeftModelForCausalLM.from_pretrained(str(source), dtype=torch.float32)
        else:
            model = AutoModelForCausalLM.from_pretrained(str(source), dtype=torch.float32)
    export(model, AutoTokenizer.from_pretrained(str(source)), folder)


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
