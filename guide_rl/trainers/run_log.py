"""What a training run writes down of each step: metrics, timings, problems, rollouts; and the trackers."""

import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from guide_rl.config import TrainRecipe
from guide_rl.metrics import Metrics
from guide_rl.progress import Progress
from guide_rl.run_folder import RunFolder, problem_line, rollout_line
from guide_rl.trainers.engine import Updated
from guide_rl.types import Group, Problem

MOST_BYTES = 4
"""Bytes, and so tokens, of the longest character in UTF-8."""


class RunLog:
    """Appends to the line files of one run.

    Args:
        recipe: says which trackers, and whether ratios are written.
        run: the run folder, cut back to the checkpoint from which it goes on.
        progress: shows the metrics.
        tokenizer: spells single tokens.

    Raises:
        ValueError: a tracker is not installed.
    """

    def __init__(self, recipe: TrainRecipe, run: RunFolder, progress: Progress, tokenizer: Any) -> None:
        self.recipe, self.run, self.progress, self.tokenizer = recipe, run, progress, tokenizer
        self._known = {(row["set"], row["id"]) for row in run.read("problems.jsonl")}
        self._texts: dict[tuple[int, ...], str] = {}
        self._trackers = start_trackers(recipe, run)

    def rollouts(self, step: int, groups: Sequence[Group], updated: Updated) -> None:
        """The rollouts of a training step, with what the update made of them."""
        self._problems("train", (group.problem for group in groups))
        self.run.append("rollouts.jsonl", self._rollout_lines(step, groups, updated))

    def held_out(self, step: int, groups: Sequence[tuple[float, Group]]) -> None:
        """The rollouts of an evaluation, with their temperatures."""
        self._problems("held-out", (group.problem for _, group in groups))
        lines = (
            {"step": step, **rollout_line(group.problem, rollout, grade), "temperature": temperature}
            for temperature, group in groups
            for rollout, grade in zip(group.rollouts, group.grades, strict=True)
        )
        self.run.append("held_out.jsonl", lines)

    def metrics(self, step: int, metrics: Metrics, timings: Metrics) -> None:
        """A line in metrics.jsonl, one in timings.jsonl, the trackers, and the display."""
        self.run.append("metrics.jsonl", [{"step": step} | metrics])
        if timings:
            self.run.append("timings.jsonl", [{"step": step} | timings])
        if self._trackers is not None:
            self._trackers.log(metrics | timings, step=step)
        self.progress.step_done(step, metrics, timings.get("tokens_per_s"))

    def close(self) -> None:
        """End the trackers."""
        if self._trackers is not None:
            self._trackers.end_training()

    def _problems(self, name: str, problems: Iterable[Problem]) -> None:
        """The problems of a set that have not been written yet."""
        new = {(name, problem.id): problem for problem in problems if (name, problem.id) not in self._known}
        self._known |= new.keys()
        self.run.append("problems.jsonl", (problem_line(name, problem) for problem in new.values()))

    def _rollout_lines(self, step: int, groups: Sequence[Group], updated: Updated) -> Iterator[dict[str, Any]]:
        for group in groups:
            for rollout, grade in zip(group.rollouts, group.grades, strict=True):
                line = {"step": step, **rollout_line(group.problem, rollout, grade)}
                line["advantage"] = updated.advantages.get(rollout.key)
                if self.recipe.log_ratios and rollout.key in updated.ratios:
                    line["ratios"] = [float(f"{ratio:.3g}") for ratio in updated.ratios[rollout.key]]
                    line["pieces"] = self._pieces_of(rollout.token_ids)
                yield line

    def _pieces_of(self, tokens: Sequence[int]) -> list[str]:
        """Each token's text; a character that several tokens spell stands at the last of them."""
        pieces, begun = [""] * len(tokens), 0
        for end in range(1, len(tokens) + 1):
            text = self._text(tuple(tokens[begun:end]))
            if not text.endswith("\N{REPLACEMENT CHARACTER}") or end - begun == MOST_BYTES or end == len(tokens):
                pieces[end - 1], begun = text, end
        return pieces

    def _text(self, tokens: tuple[int, ...]) -> str:
        """The text of a few tokens, remembered."""
        if tokens not in self._texts:
            self._texts[tokens] = self.tokenizer.decode(tokens)
        return self._texts[tokens]


def check_trackers(recipe: TrainRecipe) -> None:
    """Raise ValueError for a tracker that is not installed."""
    for tracker in recipe.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise ValueError(f"trackers names {tracker}, which is not installed: pip install {tracker}")


def start_trackers(recipe: TrainRecipe, run: RunFolder) -> Any:
    """accelerate's trackers, under the run's name; None where the recipe names none."""
    if not recipe.trackers:
        return None
    from accelerate import Accelerator

    trackers = Accelerator(cpu=True, log_with=list(recipe.trackers), project_dir=str(run.path))
    trackers.init_trackers(run.path.name, config={"recipe": json.dumps(asdict(recipe))})
    return trackers
