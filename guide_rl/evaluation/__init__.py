"""Held-out problems x samples -> pass@1 and pass@k, with the same prompts and graders as training."""

from collections.abc import Callable, Sequence

from guide_rl.algorithm import sample_groups
from guide_rl.config import EvaluationConfig
from guide_rl.equations.pass_at_k import mean_pass_at_k
from guide_rl.metrics import Metrics
from guide_rl.types import Grader, Group, Problem, Sampler

SamplerFor = Callable[[float], Sampler]

EVALUATION_STREAM = 2**32
"""Stands where training has the step in a random stream's key, so that evaluation never shares one with training."""


def evaluate(
    problems: Sequence[Problem],
    prompt_ids: Callable[[Problem, bool], tuple[int, ...]],
    sampler_for: SamplerFor,
    grader: Grader,
    config: EvaluationConfig,
    *,
    seed: int,
    report: Callable[[str], None] = lambda text: None,
) -> tuple[Metrics, list[tuple[float, Group]]]:
    """Greedy pass@1 and, with `samples`, unbiased pass@k at temperature 1 over plain prompts.

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
    plans = [(0.0, 1, {1: "pass@1"})]
    if config.samples:
        powers = [2**i for i in range(config.samples.bit_length()) if 2**i <= config.samples]
        plans.append((1.0, config.samples, {k: f"pass@{k}" if k > 1 else "sampled_pass@1" for k in powers}))
    for temperature, samples, names in plans:
        stream = sample_groups(
            problems,
            prompt_ids,
            sampler_for(temperature),
            grader,
            k=samples,
            k_guided=samples,
            trigger="never",
            seed=(seed, EVALUATION_STREAM),
        )
        groups: list[Group] = []
        for group in stream:
            groups.append(group)
            report(
                f"{len(groups)} of {len(problems)} problems, {'greedy' if temperature == 0 else f'{samples} samples'}"
            )
        for stratum in sorted({problem.stratum for problem in problems} | {""}):
            corrects = [
                [grade.correct for grade in group.grades] for group in groups if stratum in ("", group.problem.stratum)
            ]
            for k, name in names.items():
                metrics[f"evaluation/{name}" + (f"/{stratum}" if stratum else "")] = mean_pass_at_k(corrects, k)
        all_groups += [(temperature, group) for group in groups]
    return metrics, all_groups
