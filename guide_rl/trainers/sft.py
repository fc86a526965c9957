"""Supervised fine-tuning on worked solutions, through TRL's SFTTrainer: the warm-up, and the paper's SFT baseline.

Ours is what must agree with reinforcement learning: the prompts (the same `Prompts`) and the EOS token that ends a
solution; the order of the rows (seeded; sorted by length inside a batch, so that micro-batches hold little padding);
and the run folder, whose checkpoints hold the state of transformers' trainer. The loss is the mean over the solution
tokens of a batch.
"""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTConfig, SFTTrainer

from guide_rl.config import SFTRecipe
from guide_rl.interrupts import Interrupts
from guide_rl.policy import Policy, explain_out_of_memory, export, load_policy, pick_device, precision, save
from guide_rl.problems import load_problems
from guide_rl.progress import Progress
from guide_rl.prompts import Prompts
from guide_rl.recipes import write_recipe
from guide_rl.run_folder import RunFolder
from guide_rl.types import Problem

_IGNORED = -100
"""The label of tokens outside the loss, in transformers."""
_SHOWN = {"loss": "loss {:.3f}", "grad_norm": "gradient {:.2g}"}
"""What the progress display shows of a step's metrics."""


@dataclass(frozen=True)
class SFTRow:
    """One problem as the model sees it in training."""

    prompt_ids: tuple[int, ...]
    """Tokens before the solution: no loss."""
    solution_ids: tuple[int, ...]
    """The solution's tokens and the EOS token: the loss."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.solution_ids)


def run_sft(recipe: SFTRecipe, *, resume: str | None = None) -> Path:
    """`guide sft`: train from the start, or continue the run in folder `resume` with the same recipe.

    Args:
        recipe: what to do.
        resume: a run folder to continue from its newest checkpoint.

    Returns:
        The folder of the trained model, RUN/model, which `from_pretrained` loads. Nothing is written outside RUN.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step that was under way is done and saved.
        FileExistsError: recipe.run holds a run already.
        FileNotFoundError, OSError: no such problem file, model or run.
        ValueError: a problem has no solution, a prompt is too long (prompts.too_long: fail), no row is left, or
            another recipe or other problems than the run's.
        FloatingPointError: the loss became NaN or infinite; the last checkpoint is from before.
    """
    run_of = RunFolder.opened(
        recipe.run,
        write_recipe(recipe),
        resume=resume,
        inputs={"problems": recipe.problems},
        may_change=("checkpoints.every", "checkpoints.keep_last", "microbatch_size"),
    )
    with run_of as (run, checkpoint), Interrupts() as interrupts:
        problems = load_problems(recipe.problems)
        policy = load_policy(recipe.model, device=pick_device(recipe.model), seed=recipe.seed, checkpoint=checkpoint)
        rows = sft_rows(problems, Prompts(policy.tokenizer, recipe.prompts), recipe)
        run.write_recipe(write_recipe(recipe))
        order = batch_order([len(row) for row in rows], recipe.batch_size, recipe.epochs, recipe.seed)
        steps = math.ceil(len(order) / recipe.batch_size)
        with Progress(steps, label=run.path.name, shown=_SHOWN) as progress:
            progress.note(_counts(recipe, rows, len(problems) - len(rows)))
            trainer = _trainer(policy, rows, order, recipe, run, [_Log(run, progress), _StopWhenAsked(interrupts)])
            with interrupts.held(), explain_out_of_memory("microbatch_size"):
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            progress.phase("exporting the model")
            model = run.put("model", lambda folder: export(policy.model, policy.tokenizer, folder))
            progress.note(f"{run.path}: {steps} steps done; the model is in {model}")
    return model


def sft_rows(problems: Sequence[Problem], prompts: Prompts, recipe: SFTRecipe) -> list[SFTRow]:
    """Problems -> rows; those over recipe.max_tokens or prompts.max_tokens are left out.

    Raises ValueError for a problem without solution, a prompt too long under `prompts.too_long: fail`, or no row left.
    """
    rows = [_row(problem, prompts, recipe.context) for problem in problems]
    kept = [
        row
        for problem, row in zip(problems, rows, strict=True)
        if not prompts.over_limit(len(row.prompt_ids), problem, recipe.context) and len(row) <= recipe.max_tokens
    ]
    if not kept:
        raise ValueError(
            f"all {len(rows)} rows are over max_tokens ({recipe.max_tokens}) or prompts.max_tokens "
            f"({prompts.config.max_tokens}); raise it"
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


def _counts(recipe: SFTRecipe, rows: Sequence[SFTRow], left_out: int) -> str:
    """What is trained on, in a line."""
    tokens, learned = sum(map(len, rows)), sum(len(row.solution_ids) for row in rows)
    note = f"{recipe.problems}: {len(rows):,} rows of {tokens:,} tokens, {learned:,} of them to learn"
    return note + (f"; {left_out:,} rows left out (over max_tokens or prompts.max_tokens)" if left_out else "")


def _trainer(
    policy: Policy,
    rows: Sequence[SFTRow],
    order: Sequence[int],
    recipe: SFTRecipe,
    run: RunFolder,
    callbacks: list[TrainerCallback],
) -> "_Trainer":
    """TRL's trainer over the rows in the given order; it changes the policy's weights in place."""
    if policy.tokenizer.pad_token_id is None:
        policy.tokenizer.pad_token = policy.tokenizer.eos_token  # padded places are masked, so any token will do
    columns = {
        "input_ids": [[*row.prompt_ids, *row.solution_ids] for row in rows],
        "labels": [[_IGNORED] * len(row.prompt_ids) + list(row.solution_ids) for row in rows],
    }
    trainer = _Trainer(
        model=policy.model,
        args=_trainer_config(recipe, policy, run),
        train_dataset=Dataset.from_dict(columns).select(order),
        processing_class=policy.tokenizer,
        callbacks=callbacks,
    )
    trainer.run, trainer.keep_last = run, recipe.checkpoints.keep_last
    trainer.remove_callback(PrinterCallback)
    return trainer


class _Trainer(SFTTrainer):
    """TRL's trainer with the run folder's checkpoints, which are there whole or not at all."""

    run: RunFolder
    keep_last: int

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Called by transformers where a checkpoint is due."""
        self.run.save_checkpoint(self.state.global_step, self._write_checkpoint)
        self.run.prune(self.keep_last)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: `load_policy` has read the weights."""

    def _write_checkpoint(self, folder: Path) -> None:
        """The weights for `load_policy`, and all else that `train(resume_from_checkpoint=...)` reads."""
        save(self.model, self.processing_class, folder)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))


def _trainer_config(recipe: SFTRecipe, policy: Policy, run: RunFolder) -> SFTConfig:
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
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=recipe.checkpoints.every,
        report_to="none",
        disable_tqdm=True,
    )


class _Log(TrainerCallback):
    """Sends TRL's numbers to the run folder and the progress display, and stops at a non-finite loss or gradient."""

    def __init__(self, run: RunFolder, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self._tokens, self._at = 0.0, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count time from here."""
        self.progress.resumed_at(state.global_step, {})
        self._at = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Take one line of TRL's log, before the step can be saved."""
        if not logs or "loss" not in logs:
            return
        step, metrics = state.global_step, {name: logs[name] for name in ("loss", "grad_norm", "learning_rate")}
        if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
            raise FloatingPointError(
                f"step {step}: loss {metrics['loss']}, gradient norm {metrics['grad_norm']}. Lower learning_rate or "
                "raise warmup_steps, then start a new run from the last checkpoint "
                f"(model.path={self.run.latest_checkpoint() or 'as before'})"
            )
        tokens, at = logs["num_tokens"], time.monotonic()
        speed = (tokens - self._tokens) / (at - self._at)
        self.run.append("metrics.jsonl", [{"step": step} | metrics])
        self.run.append("timings.jsonl", [{"step": step, "seconds": at - self._at, "tokens_per_s": speed}])
        self.progress.phase("training")
        self.progress.step_done(step, metrics, speed)
        self._tokens, self._at = tokens, at


class _StopWhenAsked(TrainerCallback):
    """At an interrupt that waits, save the step that is done and stop."""

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called after every optimizer step, before it is logged and saved."""
        if self.interrupts.pending:
            control.should_save = control.should_training_stop = True
