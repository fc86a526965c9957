"""The local engine: one process, one device, plain PyTorch.

Read `LocalTrainer.step`: sample groups, update the policy, log. The update follows equation 6 of the paper over
mini-batches of problems. Departures from the plain text, all exact: rows whose advantage is 0 run no forward pass
where nothing but the surrogate is in the loss; old log-probs of plain rows in the first mini-batch are its own
detached log-probs (the policy has not moved yet); all rows of a problem share one run of its plain prompt.
"""

import importlib.util
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from guide_rl.algorithm import group_to_train, sample_groups
from guide_rl.config import TrainRecipe
from guide_rl.equations.losses import LossSums, policy_loss
from guide_rl.equations.ratios import Logprobs
from guide_rl.evaluation import evaluate
from guide_rl.graders.pool import GraderPool
from guide_rl.interrupts import Interrupts
from guide_rl.logprobs import Row, Scorer, sharing_is_exact, unpad
from guide_rl.metrics import Metrics, group_metrics
from guide_rl.policy import export, load_policy, pick_device, precision, save
from guide_rl.progress import Progress
from guide_rl.prompts import Prompts
from guide_rl.recipes import write_recipe
from guide_rl.run_folder import DiskFull, RunFolder, rollout_lines
from guide_rl.samplers.transformers import TransformersSampler
from guide_rl.trainers.minibatches import Minibatch, RatioLog, TrainRow, build_minibatches
from guide_rl.trainers.old_logprobs import fill_old_logprobs, log_untrained_guided_rows
from guide_rl.trainers.problem_sets import held_out_problems, training_problems
from guide_rl.trainers.reference import Reference
from guide_rl.trainers.schedule import learning_rate
from guide_rl.types import Grader, Group, Problem


def train(recipe: TrainRecipe, *, resume: str | None = None) -> RunFolder:
    """`guide train`: run a recipe from the start, or continue the run in folder `resume` with the same recipe.

    Args:
        recipe: what to do.
        resume: a run folder to continue from its newest checkpoint.

    Returns:
        The run folder, with metrics, rollouts, checkpoints and the trained model in `model/`.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the last whole step is saved.
        ValueError, OSError, MemoryError, FloatingPointError: what went wrong and what to do about it.
    """
    if resume is None:
        run = RunFolder.create(recipe.run, write_recipe(recipe))
    else:
        run = RunFolder.open(resume)
        run.check_recipe(write_recipe(recipe))
    progress, grading = Progress(recipe.steps, label=run.path.name), recipe.grading
    with run.lock(), GraderPool(grading.workers, grading.timeout_s, grading.memory_mb) as grader, progress:
        checkpoint = None if resume is None else run.latest_checkpoint()
        if resume is not None:
            run.rewind(checkpoint)
        try:
            trainer = LocalTrainer(recipe, run, checkpoint, progress, grader)
        except BaseException:
            if resume is None:
                run.discard()
            raise
        progress.resumed_at(trainer.step_done)
        grader.warm_up()
        trainer.fit()
    progress.note(f"{run.path}: {trainer.step_done} steps done; the model is in {run.path / 'model'}")
    return run


class NonFiniteLoss(FloatingPointError):
    """The loss or the gradient is NaN or infinite; the policy was left as it was before the step."""


class LocalTrainer:
    """Trains one policy by one recipe, from the start or from a checkpoint.

    Args:
        recipe: what to do.
        run: the run folder, created or reopened.
        checkpoint: a checkpoint of this run to continue from.
        progress: shows what is going on.

    Raises:
        ValueError, OSError: the recipe asks for what is not there or cannot be (the message says what).
    """

    def __init__(
        self, recipe: TrainRecipe, run: RunFolder, checkpoint: Path | None, progress: Progress, grader: Grader
    ) -> None:
        from accelerate import Accelerator

        self.recipe, self.run, self.progress, self.grader = recipe, run, progress, grader
        for tracker in recipe.trackers:
            if importlib.util.find_spec(tracker) is None:
                raise ValueError(f"trackers names {tracker}, which is not installed: pip install {tracker}")
        device = pick_device(recipe.model)
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="bf16" if precision(recipe.model, device) == torch.bfloat16 else "no",
            log_with=list(recipe.trackers) or None,
            project_dir=str(run.path),
        )
        self.policy = load_policy(recipe.model, device=self.accelerator.device, seed=recipe.seed, checkpoint=checkpoint)
        self.prompts = Prompts(self.policy.tokenizer, recipe.prompts)
        self._prompt_ids: dict[tuple[str, str, bool], tuple[int, ...]] = {}
        self.problems = training_problems(recipe, self.prompts, progress.note)
        self.held_out = held_out_problems(recipe, self.prompts, progress.note)
        self.scorer = Scorer(
            temperature=recipe.sampling.temperature,
            tokens_per_microbatch=recipe.optimizer.tokens_per_microbatch,
            share_prompts=not recipe.model.gradient_checkpointing and sharing_is_exact(self.policy),
            autocast=self.accelerator.autocast,
        )
        self.policy.model.train(recipe.model.gradient_checkpointing)
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in self.policy.model.parameters() if parameter.requires_grad],
            lr=recipe.optimizer.learning_rate,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self.sampler = self._sampler(recipe.sampling.temperature)
        self.step_done, self.saved, self.evaluated = 0, 0, -1
        self.whole = True
        self.best_step, self.best_score = 0, -1.0
        self.sampled = {"rollouts": 0, "tokens": 0}
        self.reference = Reference.of(self.policy, recipe)
        if checkpoint is not None:
            self._restore(checkpoint)
        if recipe.trackers:
            self.accelerator.init_trackers("guide", config={"recipe": json.dumps(asdict(recipe))})

    # ------------------------------------------------------------------ the loop

    def fit(self) -> None:
        """Train to the recipe's last step or budget, and export the model.

        When interrupted or stopped by an error between two steps, the last whole step is saved first; what stops an
        update (say, out of memory) leaves the last checkpoint.
        """
        with Interrupts() as interrupts:
            try:
                self._evaluate_if_due(interrupts)
                while not self.finished:
                    self.step(interrupts)
                    self._evaluate_if_due(interrupts)
                self.progress.phase("exporting the model")
                export(self.policy.model, self.policy.tokenizer, self.run.path / "model")
            except (KeyboardInterrupt, Exception) as error:
                if self.whole and self.saved != self.step_done and not isinstance(error, DiskFull):
                    with interrupts.held():
                        self.progress.note(f"stopped: saving step {self.step_done}")
                        self.save()
                raise
            finally:
                self.accelerator.end_training()

    @property
    def finished(self) -> bool:
        """Whether the last step is done or a budget spent."""
        budget, spent = self.recipe.budget, self.sampled
        return self.step_done >= self.recipe.steps or any(
            limit is not None and spent[name] >= limit for name, limit in asdict(budget).items()
        )

    def step(self, interrupts: Interrupts) -> None:
        """One step: sample groups, update the policy, log, save where due. Before the update an interrupt drops it."""
        step, started = self.step_done + 1, time.perf_counter()
        groups = self.sample(step)
        sampled = time.perf_counter()
        with interrupts.held():
            self.progress.phase("updating", f"step {step}")
            self.whole = False
            metrics = group_metrics(groups) | self.update(groups, step)
            seconds = time.perf_counter() - started
            self.step_done = step
            self.sampled = {name: self.sampled[name] + int(metrics[name]) for name in self.sampled}
            metrics |= {f"total/{name}": float(count) for name, count in self.sampled.items()}
            timings = {
                "seconds": seconds,
                "seconds/sampling": sampled - started,
                "seconds/update": seconds - (sampled - started),
                "tokens_per_s": metrics["tokens"] / seconds,
            }
            self.run.append("rollouts.jsonl", rollout_lines(step, groups))
            self._log(step, metrics, timings)
            self.whole = True
            if step % self.recipe.checkpoints.every == 0:
                self.save()

    def sample(self, step: int) -> list[Group]:
        """The groups of a step, in the order of its batch of problems."""
        recipe, batch = self.recipe, self.batch(step)
        place = {problem.id: i for i, problem in enumerate(batch)}
        groups: list[Group] = []
        self.progress.phase("sampling", f"step {step}")
        stream = sample_groups(
            batch,
            self.prompt_ids,
            self.sampler,
            self.grader,
            k=recipe.sampling.k,
            k_guided=recipe.k_guided,
            trigger=recipe.guidance.trigger,
            seed=(recipe.seed, step),
        )
        with self.accelerator.autocast():
            for group in stream:
                groups.append(group)
                self.progress.phase("sampling", f"step {step}, {len(groups)} of {len(batch)} groups")
        return sorted(groups, key=lambda group: place[group.problem.id])

    def batch(self, step: int) -> list[Problem]:
        """The problems of a step: each epoch is a new order, a function of seed and epoch; its remainder is dropped."""
        size = self.recipe.problems_per_step
        epoch, position = divmod(step - 1, len(self.problems) // size)
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.problems))
        return [self.problems[i] for i in order[position * size : (position + 1) * size]]

    # ------------------------------------------------------------------ the update (equation 6)

    def update(self, groups: Sequence[Group], step: int) -> Metrics:
        """`optimizer.epochs` passes over the mini-batches of a step's groups.

        Returns:
            What the update says: loss, gradient norm, clip fraction, ratios of guided rows, mismatch of the sampler.
        """
        recipe, ratios = self.recipe, RatioLog()
        kept = [group_to_train(group, recipe.guidance.keep_guided) for group in groups]
        batches = build_minibatches(kept, recipe, self.prompt_ids)
        if self.reference is not None:
            self.reference.refresh(step)
        fill_old_logprobs(batches, self.policy, self.scorer, recipe.loss)
        log_untrained_guided_rows(groups, batches, self.policy, self.scorer, self.prompt_ids, ratios)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        totals = []
        for epoch in range(recipe.optimizer.epochs):
            for batch in batches:
                if batch.groups:
                    totals.append(self._optimizer_step(batch, step, ratios if epoch == 0 else None))
        metrics = {"learning_rate": learning_rate(recipe, step), "optimizer_steps": float(len(totals))}
        for key in sorted({key for total in totals for key in total}):
            metrics[key] = float(np.mean([total[key] for total in totals if key in total]))
        return metrics | ratios.metrics()

    def _optimizer_step(self, batch: Minibatch, step: int, ratios: RatioLog | None) -> Metrics:
        """Loss and gradient of one mini-batch, micro-batch by micro-batch, then AdamW."""
        recipe, rows = self.recipe, batch.rows
        parameters = self.optimizer.param_groups[0]["params"]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        loss, sums = torch.zeros((), device=self.policy.device), None
        for part in self.scorer.microbatches([row.plain for row in rows]):
            part_loss, part_sums = self._backward([rows[i] for i in part], ratios)
            loss, sums = loss + part_loss, part_sums if sums is None else sums + part_sums
        norm = self.accelerator.clip_grad_norm_(parameters, recipe.optimizer.max_grad_norm)
        if not torch.isfinite(loss + norm):
            self._refuse_non_finite(rows, step, float(loss), float(norm))
        self.optimizer.step()
        return {"loss": float(loss), "grad_norm": float(norm)} | ({} if sums is None else _means(sums))

    def _backward(self, rows: Sequence[TrainRow], ratios: RatioLog | None) -> tuple[Tensor, LossSums]:
        """Loss and gradient of one micro-batch; on its first pass a row without old log-probs takes its own."""
        recipe, guided_N = self.recipe, torch.tensor([row.guided for row in rows], device=self.policy.device)
        plain_rows = [row.plain for row in rows]
        scores = self.scorer.score(self.policy, plain_rows, entropy=recipe.loss.entropy_coef > 0)
        in_context = recipe.loss.guided_ratio == "in_context" and bool(guided_N.any())
        sampled_rows = [row.sampled for row in rows]
        new_guided = self.scorer.score(self.policy, sampled_rows).logprobs_NT if in_context else None
        reference = self._reference_logprobs(plain_rows)
        new_NT, mask_NT = scores.logprobs_NT, scores.mask_NT
        for row, new_T in zip(rows, unpad(new_NT.detach(), plain_rows), strict=True):
            if row.old is None:
                row.old = new_T
            if row.old_plain is None:
                row.old_plain = new_T
            if ratios is not None:
                ratios.add(row.rollout, new_T, row.old, recomputed=row.recomputed)
        logprobs = Logprobs(
            new_plain_NT=new_NT,
            old_NT=_stack([row.old for row in rows], new_NT),
            old_plain_NT=_stack([row.old_plain for row in rows], new_NT),
            new_guided_NT=new_guided,
        )
        loss, sums = policy_loss(
            logprobs,
            torch.tensor([row.advantage for row in rows], device=new_NT.device),
            guided_N,
            mask_NT,
            torch.tensor([row.weight for row in rows], device=new_NT.device),
            ref_NT=reference,
            entropies_NT=scores.entropies_NT,
            **{name: getattr(recipe.loss, name) for name in LOSS_SETTINGS},
        )
        self.accelerator.backward(loss)
        return loss.detach(), sums

    def _reference_logprobs(self, rows: Sequence[Row]) -> Tensor | None:
        """log pi_ref under the plain prompt, where there is a reference policy."""
        if self.reference is None:
            return None
        with self.reference.active() as policy:
            return self.scorer.score(policy, rows).logprobs_NT

    def _refuse_non_finite(self, rows: Sequence[TrainRow], step: int, loss: float, norm: float) -> NoReturn:
        """Save the batch that made the loss or gradient non-finite, and stop."""
        path = self.run.path / f"non_finite_step_{step:06d}.jsonl"
        lines = [asdict(row.rollout) | {"advantage": row.advantage, "weight": row.weight} for row in rows]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        raise NonFiniteLoss(
            f"step {step}: loss {loss}, gradient norm {norm}. The optimizer was not stepped; the batch is in {path}. "
            f"Lower optimizer.learning_rate or raise optimizer.warmup_steps, then start a new run from the last "
            f"checkpoint (model.path: {self.run.latest_checkpoint() or self.recipe.model.path})"
        )

    # ------------------------------------------------------------------ evaluation, checkpoints, logs

    def _evaluate_if_due(self, interrupts: Interrupts) -> None:
        """Evaluate at every `evaluation.every`-th step, the first and the last; save the best policy and the last."""
        step, every = self.step_done, self.recipe.evaluation.every
        if every and self.evaluated != step and (step % every == 0 or self.finished):
            self.progress.phase("evaluating", f"step {step}")
            with self.accelerator.autocast():
                metrics, _ = evaluate(
                    self.held_out,
                    self.prompt_ids,
                    self._evaluation_sampler,
                    self.grader,
                    self.recipe.evaluation,
                    seed=self.recipe.seed,
                )
            with interrupts.held():
                self._log(step, metrics, {})
                self.evaluated = step
                if metrics["evaluation/pass@1"] > self.best_score:
                    self.best_step, self.best_score = step, metrics["evaluation/pass@1"]
                    if step > 0:
                        self.save()
        if self.finished and self.saved != step:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the last whole step and remove those no longer kept."""
        self.progress.phase("saving", f"step {self.step_done}")
        self.run.save_checkpoint(self.step_done, self._write_checkpoint)
        self.saved = self.step_done
        self.run.prune(self.recipe.checkpoints.keep_last, keep=[self.best_step])

    def _write_checkpoint(self, folder: Path) -> None:
        """Model and tokenizer in Hugging Face format, and trainer.pt with the rest of the state."""
        save(self.policy.model, self.policy.tokenizer, folder)
        state = {name: getattr(self, name) for name in _STATE}
        state |= {
            "optimizer": self.optimizer.state_dict(),
            "reference": None if self.reference is None else self.reference.state(),
        }
        torch.save(state, folder / "trainer.pt")

    def _restore(self, checkpoint: Path) -> None:
        """Take the state that `_write_checkpoint` wrote; the model's weights are loaded already."""
        state = torch.load(checkpoint / "trainer.pt", map_location=self.policy.device, weights_only=True)
        for name in _STATE:
            setattr(self, name, state[name])
        self.saved = self.step_done
        self.optimizer.load_state_dict(state["optimizer"])
        if self.reference is not None:
            self.reference.restore(state["reference"])

    def _log(self, step: int, metrics: Metrics, timings: Metrics) -> None:
        """A line in metrics.jsonl, one in timings.jsonl, the trackers, and the display."""
        self.run.append("metrics.jsonl", [{"step": step} | metrics])
        if timings:
            self.run.append("timings.jsonl", [{"step": step} | timings])
        if self.recipe.trackers:
            self.accelerator.log(metrics | timings, step=step)
        self.progress.step_done(step, metrics, timings.get("tokens_per_s"))

    # ------------------------------------------------------------------ setting up

    def prompt_ids(self, problem: Problem, guided: bool) -> tuple[int, ...]:
        """The problem's prompt as token ids."""
        key = (problem.id, problem.question, guided)
        if key not in self._prompt_ids:
            self._prompt_ids[key] = self.prompts.guided_ids(problem) if guided else self.prompts.plain_ids(problem)
        return self._prompt_ids[key]

    def _sampler(self, temperature: float, max_tokens: int | None = None, **options: Any) -> TransformersSampler:
        """A sampler over the policy being trained."""
        sampling = self.recipe.sampling
        return TransformersSampler(
            model=self.policy.model,
            tokenizer=self.policy.tokenizer,
            temperature=temperature,
            max_tokens=max_tokens or sampling.max_tokens,
            stop=sampling.stop,
            batch_size=sampling.batch_size,
            **options,
        )

    def _evaluation_sampler(self, temperature: float) -> TransformersSampler:
        """A sampler with the evaluation's own limits."""
        evaluation = self.recipe.evaluation
        return self._sampler(temperature, evaluation.max_tokens, top_p=evaluation.top_p, top_k=evaluation.top_k)


LOSS_SETTINGS = (
    "guided_ratio",
    "ratio_cap",
    "clip_low",
    "clip_high",
    "clip_guided",
    "reshape",
    "reshape_as",
    "reshape_constant",
    "reshape_percentile",
    "beta",
    "kl_rows",
    "entropy_coef",
)
"""The fields of `LossConfig` that `policy_loss` takes."""

_STATE = ("step_done", "sampled", "evaluated", "best_step", "best_score")


def _means(sums: LossSums) -> Metrics:
    """Sums over a mini-batch -> the means that are logged."""
    pairs = {
        "clip_fraction": (sums.clipped, sums.clippable),
        "kl": (sums.kl, sums.kl_tokens),
    }
    return {name: float(total) / float(count) for name, (total, count) in pairs.items() if count}


def _stack(values: Sequence[Tensor | None], like_NT: Tensor) -> Tensor:
    """Rows of different lengths -> a tensor of the shape of `like_NT`, padded with 0."""
    stacked_NT = torch.zeros_like(like_NT, requires_grad=False)
    for n, value_T in enumerate(values):
        assert value_T is not None
        stacked_NT[n, : len(value_T)] = value_T
    return stacked_NT
