"""Supervised fine-tuning on worked solutions, through TRL's SFTTrainer: the warm-up, and the paper's SFT baseline.

Ours is what must agree with reinforcement learning: the prompts (the same `Prompts`) and the EOS token that ends a
solution; and the order of the rows (seeded; sorted by length inside a batch, so that micro-batches hold little
padding). The loss is the mean over the solution tokens of a batch. Unlike RL, a run cannot be resumed.
"""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from guide_rl.config import SFTRecipe
from guide_rl.policy import Policy, export, load_policy, precision
from guide_rl.problems import load_problems
from guide_rl.progress import Progress
from guide_rl.prompts import Prompts
from guide_rl.run_folder import RunFolder
from guide_rl.types import Problem

_IGNORED = -100
"""The label of tokens outside the loss, in transformers."""


@dataclass(frozen=True)
class SFTRow:
    """One problem as the model sees it in training."""

    prompt_ids: tuple[int, ...]
    """Tokens before the solution: no loss."""
    solution_ids: tuple[int, ...]
    """The solution's tokens and the EOS token: the loss."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.solution_ids)


def run_sft(recipe: SFTRecipe) -> Path:
    """Train as the recipe says and return the folder of the trained model, RUN/model, which `from_pretrained` loads.

    RUN also gets recipe.yaml, versions.json and metrics.jsonl; nothing is written elsewhere.

    Raises:
        FileExistsError: recipe.run holds a run already.
        FileNotFoundError, OSError: no such problem file or model.
        ValueError: a problem has no solution, a prompt is too long (prompts.too_long: fail), or no row is left.
        FloatingPointError: the loss became NaN or infinite; no model is written.
    """
    problems = load_problems(recipe.problems)
    wants_cuda = recipe.model.device == "cuda" or (recipe.model.device == "auto" and torch.cuda.is_available())
    policy = load_policy(recipe.model, device=torch.device("cuda" if wants_cuda else "cpu"), seed=recipe.seed)
    rows = sft_rows(problems, Prompts(policy.tokenizer, recipe.prompts), recipe)
    run = RunFolder.create(recipe.run, yaml.safe_dump(asdict(recipe), sort_keys=False))
    order = batch_order([len(row) for row in rows], recipe.batch_size, recipe.epochs, recipe.seed)
    with Progress(math.ceil(len(order) / recipe.batch_size), label="sft") as progress:
        if left_out := len(problems) - len(rows):
            progress.note(f"{left_out} of {len(problems)} rows left out: longer than max_tokens or prompts.max_tokens")
        _train(policy, rows, order, recipe, run, progress)
    partial, final = run.path / ".model.partial", run.path / "model"
    export(policy.model, policy.tokenizer, partial)
    partial.rename(final)
    return final


def sft_rows(problems: Sequence[Problem], prompts: Prompts, recipe: SFTRecipe) -> list[SFTRow]:
    """Problems -> rows; those over recipe.max_tokens or prompts.max_tokens are left out.

    Raises ValueError for a problem without solution, a prompt too long under `prompts.too_long: fail`, or no row left.
    """
    rows = [_row(problem, prompts, recipe.context) for problem in problems]
    limit = prompts.config.max_tokens
    for problem, row in zip(problems, rows, strict=True):
        if prompts.config.too_long == "fail" and len(row.prompt_ids) > limit:
            raise ValueError(
                f"problem {problem.id!r}: its prompt has {len(row.prompt_ids)} tokens, over prompts.max_tokens "
                f"({limit}); raise it, or set prompts.too_long to skip"
            )
    kept = [row for row in rows if len(row) <= recipe.max_tokens and len(row.prompt_ids) <= limit]
    if not kept:
        raise ValueError(
            f"all {len(rows)} rows are over max_tokens ({recipe.max_tokens}) or prompts.max_tokens ({limit}); raise it"
        )
    return kept


def batch_order(lengths: Sequence[int], batch_size: int, epochs: float, seed: int) -> list[int]:
    """floor(epochs * rows) row numbers in training order: each epoch shuffled anew, each batch sorted by length."""
    rng = random.Random(seed)
    order: list[int] = []
    for _ in range(math.ceil(epochs)):
        order += rng.sample(range(len(lengths)), len(lengths))
    order = order[: max(1, int(epochs * len(lengths)))]
    batches = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    return [row for batch in batches for row in sorted(batch, key=lambda row: lengths[row])]


def _row(problem: Problem, prompts: Prompts, context: str) -> SFTRow:
    """Prompt and solution of one problem, as token ids."""
    if problem.solution is None:
        raise ValueError(f"problem {problem.id!r} has no solution to learn; add one or remove the problem")
    guided = context == "guided" and problem.guidance is not None
    prompt_ids = prompts.guided_ids(problem) if guided else prompts.plain_ids(problem)
    solution_ids = prompts.tokenizer(problem.solution, add_special_tokens=False)["input_ids"]
    return SFTRow(prompt_ids, (*solution_ids, prompts.tokenizer.eos_token_id))


def _train(
    policy: Policy, rows: Sequence[SFTRow], order: Sequence[int], recipe: SFTRecipe, run: RunFolder, progress: Progress
) -> None:
    """Run TRL's trainer over the rows in the given order; the policy's weights change in place."""
    if policy.tokenizer.pad_token_id is None:
        policy.tokenizer.pad_token = policy.tokenizer.eos_token  # padded places are masked, so any token will do
    columns = {
        "input_ids": [[*row.prompt_ids, *row.solution_ids] for row in rows],
        "labels": [[_IGNORED] * len(row.prompt_ids) + list(row.solution_ids) for row in rows],
    }
    steps = math.ceil(len(order) / recipe.batch_size)
    trainer = SFTTrainer(
        model=policy.model,
        args=_trainer_config(recipe, policy, run, steps),
        train_dataset=Dataset.from_dict(columns).select(order),
        processing_class=policy.tokenizer,
        callbacks=[_Log(run, progress)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def _trainer_config(recipe: SFTRecipe, policy: Policy, run: RunFolder, steps: int) -> SFTConfig:
    """The recipe in TRL's words; everything that TRL or transformers would decide by itself is said."""
    return SFTConfig(
        output_dir=str(run.path),
        seed=recipe.seed,
        data_seed=recipe.seed,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=recipe.microbatch_size,
        gradient_accumulation_steps=recipe.batch_size // recipe.microbatch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(recipe.schedule, recipe.schedule),
        warmup_steps=recipe.warmup_steps,
        weight_decay=0.0,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=precision(recipe.model, policy.device) == torch.bfloat16,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        use_cpu=policy.device.type == "cpu",
        dataloader_pin_memory=policy.device.type == "cuda",
        logging_steps=max(1, steps // 100),
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class _Log(TrainerCallback):
    """Sends TRL's numbers to RUN/metrics.jsonl and to the progress display, and stops at a non-finite loss."""

    def __init__(self, run: RunFolder, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self._tokens, self._at = 0.0, time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Take one line of TRL's log."""
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(f"the loss is {logs['loss']} at step {state.global_step}; lower learning_rate")
        tokens, at = logs.get("num_tokens", 0.0), time.monotonic()
        metrics = {"step": state.global_step, "loss": logs["loss"], "learning_rate": logs["learning_rate"]}
        self.run.append("metrics.jsonl", [metrics])
        self.progress.phase("training", f"loss {logs['loss']:.3f}")
        self.progress.step_done(state.global_step, metrics, (tokens - self._tokens) / (at - self._at))
        self._tokens, self._at = tokens, at
