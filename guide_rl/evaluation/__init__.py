"""Problems x rollouts -> pass@1 and pass@k, with the same prompts and graders as training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from guide_rl.algorithm import sample_groups
from guide_rl.config import EvaluationConfig
from guide_rl.equations.pass_at_k import mean_pass_at_k
from guide_rl.metrics import Metrics
from guide_rl.types import Grader, Group, Problem, Sampler

PromptIds = Callable[[Problem, bool], tuple[int, ...]]
SamplerFor = Callable[[float], Sampler]

EVALUATION_STREAM = 2**32
"""Stands where training has the step in a random stream's key, so that evaluation never shares one with training."""


@dataclass(frozen=True)
class Setting:
    """How each problem is sampled."""

    temperature: float
    """0 is greedy."""
    rollouts: int
    """Rollouts a problem."""
    guided: bool = False
    """Whether the prompt holds the guidance; only problems that have some can be sampled so."""

    def __str__(self) -> str:
        kind = "greedy" if self.temperature == 0 else f"{self.rollouts} samples"
        return f"{kind}, guided" if self.guided else kind


def sample_setting(
    problems: Sequence[Problem], prompt_ids: PromptIds, sampler: Sampler, grader: Grader, setting: Setting, *, seed: int
) -> Iterator[Group]:
    """Yield the group of each problem as soon as it is whole.

    A rollout's random stream is keyed by seed, problem id, index and guided alone: the same rollouts come out whatever else is
    evaluated, but for rounding, and other models get the same random numbers.

    Args:
        problems: what to sample.
        prompt_ids: (problem, guided) -> token ids.
        sampler: idle, at the setting's temperature.
        grader: judges the rollouts.
        setting: how.
        seed: the recipe's seed.
    """
    return sample_groups(
        problems,
        prompt_ids,
        sampler,
        grader,
        k=setting.rollouts,
        k_guided=setting.rollouts,
        trigger="only_guided" if setting.guided else "never",
        seed=(seed, EVALUATION_STREAM),
    )


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`."""
    return [2**i for i in range(most.bit_length())]


def evaluate(
    problems: Sequence[Problem],
    prompt_ids: PromptIds,
    sampler_for: SamplerFor,
    grader: Grader,
    config: EvaluationConfig,
    *,
    seed: int,
    report: Callable[[str], None] = lambda text: None,
) -> tuple[Metrics, list[tuple[float, Group]]]:
    """The evaluation within training: greedy pass@1 and, with `samples`, unbiased pass@k at temperature 1, over plain prompts.

    Args:
        problems: the held-out problems.
        prompt_ids: (problem, guided) -> token ids.
        sampler_for: temperature -> an idle sampler (0 is greedy).
        grader: judges the rollouts.
        config: the recipe's `evaluation` section.
        seed: the recipe's seed.
        report: is told how far it is, at every problem.

    Returns:
        Metrics `evaluation/pass@1` (greedy), `evaluation/sampled_pass@1` and `evaluation/pass@k` for k in powers of
        two, each over all problems and per stratum (`.../easy`); and the groups, each with its temperature, greedy ones
        first.
    """
    metrics: Metrics = {}
    all_groups: list[tuple[float, Group]] = []
    plans = [(Setting(0.0, 1), {1: "pass@1"})]
    if config.samples:
        names = {k: f"pass@{k}" if k > 1 else "sampled_pass@1" for k in powers_of_two(config.samples)}
        plans.append((Setting(1.0, config.samples), names))
    for setting, names in plans:
        groups: list[Group] = []
        sampler = sampler_for(setting.temperature)
        for group in sample_setting(problems, prompt_ids, sampler, grader, setting, seed=seed):
            groups.append(group)
            report(f"{len(groups)} of {len(problems)} problems, {setting}")
        for stratum in sorted({problem.stratum for problem in problems} | {""}):
            corrects = [
                [grade.correct for grade in group.grades] for group in groups if stratum in ("", group.problem.stratum)
            ]
            for k, name in names.items():
                metrics[f"evaluation/{name}" + (f"/{stratum}" if stratum else "")] = mean_pass_at_k(corrects, k)
        all_groups += [(setting.temperature, group) for group in groups]
    return metrics, all_groups
