"""`guide train --dry-run`: what a recipe would do, before it costs anything."""

import time
from dataclasses import replace
from statistics import median

import torch

from guide_rl.config import GradingConfig, TrainRecipe
from guide_rl.graders.pool import GraderPool, check_answers
from guide_rl.policy import Policy, precision
from guide_rl.progress import duration
from guide_rl.recipes import write_recipe
from guide_rl.run_folder import RunFolder
from guide_rl.trainers.engine import engine_of
from guide_rl.trainers.local import LocalEngine
from guide_rl.trainers.problem_sets import held_out_problems, training_problems
from guide_rl.trainers.run_log import check_trackers
from guide_rl.types import Problem

CHECKED_ANSWERS = 200
"""How many reference answers are graded."""


def dry_run(recipe: TrainRecipe) -> str:
    """The resolved recipe, one problem's plain and guided prompt as the model sees them, and the cost, as text.

    Raises:
        ValueError, OSError: what `guide train` would stop with while setting up (model, problems, prompts).
    """
    check_trackers(recipe)
    notes: list[str] = []
    plain = replace(recipe, model=replace(recipe.model, gradient_checkpointing=False))
    with engine_of(plain, RunFolder(recipe.run), None) as engine:
        problems = training_problems(recipe, engine, notes.append)
        held_out_problems(recipe, engine, notes.append)
    prompts = engine.prompt_ids.prompts
    shown = next((problem for problem in problems if problem.guidance is not None), problems[0])
    parts = [
        "# The recipe\n",
        write_recipe(recipe),
        f"\n# Problem {shown.id!r}, plain prompt\n",
        prompts.text(shown, guided=False),
    ]
    if shown.guidance is not None:
        parts += ["\n\n# The same, guided\n", prompts.text(shown, guided=True)]
    lengths = [len(prompts.plain_ids(problem)) for problem in problems[:1000]]
    parts += [
        f"\n\n# Run\n{_run_folder(recipe)}",
        "\n# Problems\n",
        *(f"{note}\n" for note in notes),
        _graders_at_work(problems[:CHECKED_ANSWERS], recipe.grading),
    ]
    parts.append("\n# Estimates\n")
    if isinstance(engine, LocalEngine):
        parts.append(memory_estimate(engine.policy, recipe, max(lengths)))
        parts.append(time_estimate(engine.policy, recipe, median(lengths)))
    else:
        parts.append("none: memory and time are estimated for engine local only\n")
    return "".join(parts)


def _run_folder(recipe: TrainRecipe) -> str:
    """Whether the run folder is free."""
    try:
        RunFolder(recipe.run).check_free()
    except FileExistsError as error:
        return f"{error}\n"
    return f"{recipe.run} is free\n"


def _graders_at_work(problems: list[Problem], limits: GradingConfig) -> str:
    """Which reference answers a grader of ours calls wrong, and what each of the user's own says of one."""
    errors: list[str] = []
    with GraderPool.of(limits, errors.append) as pool:
        unreadable, checked = check_answers(problems, pool)
        own = {problem.grader: problem for problem in problems if ":" in problem.grader}
        grades = {name: pool.grade_thoroughly(problem, problem.answer) for name, problem in own.items()}
    lines = [f"{checked - len(unreadable)} of the first {checked} reference answers are read by our graders"] * bool(
        checked
    )
    if unreadable:
        names = ", ".join(problem.id for problem in unreadable[:10])
        lines.append(f"only the same spelling can be correct in the other {len(unreadable)}: problems {names}")
    for name, grade in grades.items():
        said = f"reward {grade.reward}, {grade.verdict}"
        lines.append(f"{name} says of the bare reference answer of problem {own[name].id}: {said}")
    return "".join(f"{line}\n" for line in lines + errors)


def memory_estimate(policy: Policy, recipe: TrainRecipe, longest_prompt: int) -> str:
    """What weights, gradients, AdamW, key-value rows and activations take, in GiB."""
    trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in policy.model.parameters())
    config = policy.causal.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rows = min(recipe.sampling.batch_size, recipe.problems_per_step * recipe.sampling.k)
    bytes_each = 2 if precision(recipe.model, policy.device) == torch.bfloat16 else 4
    columns = longest_prompt + recipe.sampling.max_tokens
    cache = 2 * config.num_hidden_layers * heads * width * columns * rows * bytes_each
    layers = 1 if recipe.model.gradient_checkpointing else config.num_hidden_layers
    rollouts = recipe.problems_per_step * (recipe.sampling.k + recipe.k_guided * (recipe.guidance.trigger != "never"))
    tokens = min(recipe.optimizer.tokens_per_microbatch, rollouts * columns)
    activations = tokens * config.hidden_size * 20 * layers * bytes_each
    copies = 4 * total * (2 if recipe.loss.beta > 0 and recipe.model.lora is None else 1)
    state = copies + 12 * trained
    return (
        f"memory: weights, gradients and AdamW {_bytes(state)}; then the larger of key-value rows while sampling "
        f"(at most {_bytes(cache)}, sampling.batch_size) and activations while updating (about "
        f"{_bytes(activations)}, optimizer.tokens_per_microbatch)\n"
    )


def time_estimate(policy: Policy, recipe: TrainRecipe, prompt_tokens: float) -> str:
    """A floor for the time of a step: the FLOPs of full-length rollouts over the matrix rate measured now."""
    rate = matrix_rate(policy.device, precision(recipe.model, policy.device))
    size = sum(p.numel() for p in policy.model.parameters())
    rollouts = recipe.problems_per_step * recipe.sampling.k
    tokens = rollouts * recipe.sampling.max_tokens + recipe.problems_per_step * prompt_tokens
    sampling, update = 2 * size * tokens, 6 * size * tokens * recipe.optimizer.epochs
    seconds = (sampling + update) / rate
    return (
        f"time: {rollouts} plain rollouts of {recipe.sampling.max_tokens} tokens are "
        f"{(sampling + update) / 1e9:,.3g} GFLOP a step; "
        f"at the {rate / 1e9:,.0f} GFLOP/s measured here that is at least {seconds:.3g} s a step, "
        f"{duration(seconds * recipe.steps)} in all. Shorter rollouts take less, guided ones come on top.\n"
    )


def _bytes(count: float) -> str:
    """A number of bytes in GiB or MiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-add rate of a large matrix product on this device, in FLOP/s: the best of a few."""
    size = 1024 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
