"""The training loop, the same for every engine.

Read `Trainer.step`: sample groups (`algorithm`), update the policy (`trainers.local` or `trainers.verl`), log, save; around it
stand evaluation, checkpoints and resuming.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from guide_rl.algorithm import group_to_train, keeps_gradient, sample_groups
from guide_rl.config import TrainRecipe
from guide_rl.evaluation import evaluate
from guide_rl.graders.pool import GraderPool
from guide_rl.interrupts import Interrupts
from guide_rl.ladder import Ladder, guided_share
from guide_rl.metrics import group_metrics
from guide_rl.progress import Progress
from guide_rl.recipes import write_recipe
from guide_rl.run_folder import STATE_FILE, DiskFull, RunFolder
from guide_rl.trainers.engine import Engine, EngineLost, engine_of
from guide_rl.trainers.problem_sets import held_out_problems, training_problems
from guide_rl.trainers.run_log import RunLog, check_trackers
from guide_rl.trainers.verdicts import refuse_failing_grader, why_no_gradient
from guide_rl.types import Grader, Group, Problem, Sampler


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
    run_of = RunFolder.opened(
        recipe.run, write_recipe(recipe), resume=resume, inputs=inputs(recipe), may_change=may_change(recipe)
    )
    grading = recipe.grading
    with (
        run_of as (run, checkpoint),
        Progress(recipe.steps, recipe.budget, label=run.path.name) as progress,
        GraderPool.of(grading, progress.note) as grader,
        engine_of(recipe, run, checkpoint) as engine,
    ):
        trainer = Trainer(recipe, run, checkpoint, progress, grader, engine)
        run.write_recipe(write_recipe(recipe))
        progress.resumed_at(trainer.step_done, trainer.sampled)
        if code := [p for p in (*trainer.problems, *trainer.held_out) if p.grader == "unit_tests"]:
            grader.check(code[0])
            grader.warm_up()  # Where no sandbox starts, nothing is sampled.
        trainer.fit()
    progress.note(trainer.summary())
    return run


def inputs(recipe: TrainRecipe) -> dict[str, str]:
    """The files and folders that a run goes on reading after its first checkpoint: field -> path, which may be a name."""
    template = recipe.prompts.chat_template
    fields = {
        "problems.train": recipe.problems.train,
        "problems.evaluation": recipe.problems.evaluation,
        "prompts.chat_template": template if template and "{{" not in template else None,
        "model.path": recipe.model.path if recipe.model.lora is not None else None,
    }
    return {field: path for field, path in fields.items() if path}


def may_change(recipe: TrainRecipe) -> list[str]:
    """The fields in which a resumed recipe may differ: what a run does beside learning, and how it fits the machine.

    After a change of the second list results are not bit for bit those of the uninterrupted run: they differ by
    rounding, or by the gradings that the new limits let end.
    """
    beside = [
        "budget.rollouts",
        "budget.tokens",
        "checkpoints.every",
        "checkpoints.keep_last",
        "grading.workers",
        "trackers",
    ]
    machine = [
        "grading.timeout_s",
        "grading.memory_mb",
        "model.device",
        "model.gradient_checkpointing",
        "optimizer.tokens_per_microbatch",
        "sampling.batch_size",
        "verl",
    ]
    return beside + machine + ["steps"] * (recipe.optimizer.schedule == "constant")


class Trainer:
    """Trains one policy by one recipe, from the start or from a checkpoint.

    Args:
        recipe: what to do.
        run: the run folder, created or reopened.
        checkpoint: a checkpoint of this run to continue from.
        progress: shows what is going on.
        grader: judges the rollouts.
        engine: made of the same recipe, run and checkpoint; started here, once the problems are known to be good.

    Raises:
        ValueError, OSError: the recipe asks for what is not there or cannot be (the message says what).
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        run: RunFolder,
        checkpoint: Path | None,
        progress: Progress,
        grader: Grader,
        engine: Engine,
    ) -> None:
        self.recipe, self.run, self.progress, self.grader, self.engine = recipe, run, progress, grader, engine
        check_trackers(recipe)
        self.problems = training_problems(recipe, engine, progress.note)
        self.held_out = held_out_problems(recipe, engine, progress.note)
        self.step_done, self.saved, self.evaluated = 0, 0, -1
        self.batches = 0
        self.reached: dict[str, int] = {}
        self.whole, self._noted_no_gradient = True, False
        self.score, self.best_step, self.best_score = 0.0, 0, -1.0
        self.sampled = {"rollouts": 0, "tokens": 0}
        if checkpoint is not None:
            self._restore(checkpoint)
        progress.phase("starting", f"engine {recipe.engine}")
        engine.start()
        self.sampler = engine.sampler(recipe.sampling.temperature, recipe.sampling.max_tokens)
        self.log = RunLog(recipe, run, progress, engine.tokenizer)

    # ------------------------------------------------------------------ the loop

    def fit(self) -> None:
        """Train to the recipe's last step or budget, and export the model.

        When interrupted or stopped by an error between two steps, the last whole step is saved first; what stops an
        update (say, out of memory) or ends the engine leaves the last checkpoint.
        """
        with Interrupts() as interrupts:
            try:
                self._settle(interrupts)
                while not self.finished:
                    self.step(interrupts)
                    self._settle(interrupts)
                self.progress.phase("exporting the model")
                self.run.put("model", self.engine.export)
            except (KeyboardInterrupt, Exception) as error:
                if self.whole and self.saved != self.step_done and not isinstance(error, DiskFull | EngineLost):
                    with interrupts.held():
                        self.progress.note(f"stopped: saving step {self.step_done}")
                        self.save()
                raise
            finally:
                self.log.close()

    def summary(self) -> str:
        """What the run came to, and where it is."""
        parts = [f"{self.run.path}: {self.step_done} steps, {self.sampled['rollouts']:,} rollouts"]
        if self.evaluated >= 0:
            best = f"checkpoints/step-{self.best_step:06d}" if self.best_step else "before training"
            parts.append(f"held-out pass@1 {self.score:.1%}, best {self.best_score:.1%} ({best})")
        return "; ".join([*parts, f"the model is in {self.run.path / 'model'}"])

    @property
    def finished(self) -> bool:
        """Whether the last step is done or a budget spent."""
        budget, spent = self.recipe.budget, self.sampled
        return self.step_done >= self.recipe.steps or any(
            limit is not None and spent[name] >= limit for name, limit in asdict(budget).items()
        )

    def step(self, interrupts: Interrupts) -> None:
        """One step: sample groups, update the policy, log. Before the update an interrupt drops it."""
        step, started = self.step_done + 1, time.perf_counter()
        groups, batches, ladder = self.sample_step(step)
        refuse_failing_grader(groups)
        sampled = time.perf_counter()
        with interrupts.held():
            self.progress.phase("updating", f"step {step}")
            self.whole = False
            updated = self.engine.update(self._to_train(groups), step)
            metrics = group_metrics(groups, ladder.left) | updated.metrics
            if ladder.active and (triggered := [group.problem for group in groups if group.triggered]):
                metrics["guidance/level"] = float(np.mean([ladder.level(problem) for problem in triggered]))
            seconds = time.perf_counter() - started
            self.step_done, self.batches, self.reached = step, batches, ladder.reached
            self.sampled = {name: self.sampled[name] + int(metrics[name]) for name in self.sampled}
            metrics |= {f"total/{name}": float(count) for name, count in self.sampled.items()}
            timings = {
                "seconds": seconds,
                "seconds/sampling": sampled - started,
                "seconds/update": seconds - (sampled - started),
                "tokens_per_s": metrics["tokens"] / seconds,
                **updated.timings,
            }
            self.log.rollouts(step, groups, updated)
            self.log.metrics(step, metrics, timings)
            if metrics["groups/uniform_after"] == 1 and not self._noted_no_gradient:
                self._noted_no_gradient = True
                self.progress.note(f"step {step} taught nothing: {why_no_gradient(metrics)}")
            self.whole = True

    def sample_step(self, step: int) -> tuple[list[Group], int, Ladder]:
        """The groups of a step, of one batch of problems or, with `sampling.refill`, of as many as it takes.

        Returns:
            The groups, how many batches the run has taken with them, and the levels of guidance after them.
        """
        ladder = Ladder(active=self.recipe.guidance.ladder, reached=self.reached)
        self.engine.prompt_ids.forget()
        groups: list[Group] = []
        batches = self.batches
        while batches - self.batches <= self.recipe.sampling.refill:
            known = {group.problem.id for group in groups}
            batches += 1
            batch = [problem for problem in self.batch(batches) if problem.id not in known]
            groups += self.sample(step, batch, ladder)
            if sum(map(self._teaches, groups)) >= self.recipe.problems_per_step:
                break
        return groups, batches, ladder

    def _to_train(self, groups: Sequence[Group]) -> Sequence[Group]:
        """All groups; of refilled ones those that teach, as many as a step has."""
        if self.recipe.sampling.refill == 0:
            return groups
        return list(filter(self._teaches, groups))[: self.recipe.problems_per_step]

    def _teaches(self, group: Group) -> bool:
        """Whether its rewards differ among the rollouts that are trained."""
        return keeps_gradient(group_to_train(group, self.recipe.guidance.keep_guided), filter_uniform=True)

    def sample(self, step: int, batch: Sequence[Problem] | None = None, ladder: Ladder | None = None) -> list[Group]:
        """The groups of a batch of problems (the step's, by default), in its order."""
        recipe, batch = self.recipe, self.batch(step) if batch is None else batch
        place = {problem.id: i for i, problem in enumerate(batch)}
        groups: list[Group] = []
        self.progress.phase("sampling", f"step {step}")
        stream = sample_groups(
            batch,
            self.engine.prompt_ids,
            self.sampler,
            self.grader,
            k=recipe.sampling.k,
            k_guided=recipe.k_guided,
            trigger=recipe.guidance.trigger,
            seed=(recipe.seed, step),
            share=guided_share(step, dropout=recipe.guidance.dropout, anneal_steps=recipe.guidance.anneal_steps),
            ladder=ladder,
        )
        with self.engine.sampling():
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

    # ------------------------------------------------------------------ evaluation, checkpoints, logs

    def _settle(self, interrupts: Interrupts) -> None:
        """What is due between two steps: an evaluation, then a checkpoint, which knows of it."""
        self._evaluate_if_due(interrupts)
        step = self.step_done
        due = step % self.recipe.checkpoints.every == 0 or step == self.best_step or self.finished
        if due and self.saved != step:
            with interrupts.held():
                self.save()

    def _evaluate_if_due(self, interrupts: Interrupts) -> None:
        """Evaluate at every `evaluation.every`-th step, the first and the last, and remember the best."""
        step, every = self.step_done, self.recipe.evaluation.every
        if every and self.evaluated != step and (step % every == 0 or self.finished):
            self.progress.phase("evaluating", f"step {step}")
            with self.engine.sampling():
                metrics, groups = evaluate(
                    self.held_out,
                    self.engine.prompt_ids,
                    self._evaluation_sampler,
                    self.grader,
                    self.recipe.evaluation,
                    seed=self.recipe.seed,
                    report=lambda text: self.progress.phase("evaluating", text),
                )
            with interrupts.held():
                self.log.held_out(step, groups)
                self.log.metrics(step, metrics, {})
                self.evaluated, self.score = step, metrics["evaluation/pass@1"]
                if self.score > self.best_score:
                    self.best_step, self.best_score = step, self.score

    def save(self) -> None:
        """Write a checkpoint of the last whole step and remove those no longer kept."""
        self.progress.phase("saving", f"step {self.step_done}")
        self.run.save_checkpoint(self.step_done, self._write_checkpoint)
        self.saved = self.step_done
        self.run.prune(self.recipe.checkpoints.keep_last, keep=[self.best_step])

    def _write_checkpoint(self, folder: Path) -> None:
        """What the engine saves, and trainer.json with the loop's own state."""
        self.engine.save(folder)
        state = {name: getattr(self, name) for name in _STATE}
        (folder / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    def _restore(self, checkpoint: Path) -> None:
        """Take the state that `_write_checkpoint` wrote; the engine takes its own."""
        state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        for name in _STATE:
            setattr(self, name, state[name])
        self.saved = self.step_done

    def _evaluation_sampler(self, temperature: float) -> Sampler:
        """A sampler with the evaluation's own limits."""
        evaluation = self.recipe.evaluation
        most = evaluation.max_tokens or self.recipe.sampling.max_tokens
        return self.engine.sampler(temperature, most, top_p=evaluation.top_p, top_k=evaluation.top_k)


_STATE = ("step_done", "batches", "reached", "sampled", "evaluated", "score", "best_step", "best_score")
"""What a checkpoint holds of the trainer itself."""
