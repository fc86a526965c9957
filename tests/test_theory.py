"""The exact world is exact, and docs/theory.md says what it computes."""

import importlib.util
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace

import pytest
import torch

from guide_rl.config import LossConfig
from guide_rl.equations.advantages import group_advantages
from guide_rl.equations.losses import policy_loss
from guide_rl.equations.ratios import Logprobs
from guide_rl.theory import tables
from guide_rl.theory.world import (
    World,
    coefficients,
    expected_update,
    guided_advantage,
    loss_settings,
    ratio_variances,
    sequences,
)

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/theory.md").read_text()
LEVELS = ("token", "sequence")


def small_world(seed: int = 0, vocabulary: int = 2, length: int = 2, k: int = 2) -> World:
    theta = torch.randn(
        5, vocabulary + 1, vocabulary, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    answers = torch.arange(vocabulary**length) % 3
    return World(theta, torch.stack([answers == 1, answers != 1]), length, k)


def all_groups(world: World, q: int, trigger: str):
    """(probability, plain rollouts, guided rollouts) of every group there can be, rollouts as numbers of sequences."""
    plain, guided = world.chances(q).tolist(), world.chances(q, True).tolist()
    numbers = range(len(plain))
    for group in product(numbers, repeat=world.k):
        chance = torch.tensor([plain[y] for y in group], dtype=torch.float64).prod().item()
        if trigger == "never" or (trigger == "all_incorrect" and any(world.correct_PN[q, y] for y in group)):
            yield chance, list(group), []
            continue
        for more in product(numbers, repeat=world.k):
            yield (
                chance * torch.tensor([guided[y] for y in more], dtype=torch.float64).prod().item(),
                list(group),
                list(more),
            )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("trigger", ["never", "all_incorrect", "always"])
def test_the_expected_update_is_the_mean_over_every_group_by_loss_and_by_hand(trigger, level):
    world = small_world()
    theta = world.theta.clone().requires_grad_()
    moving = replace(world, theta=theta)
    loss, by_hand, total = torch.zeros((), dtype=torch.float64), torch.zeros(theta.numel(), dtype=torch.float64), 0.0
    new, in_context = moving.logprobs(0, False, level), moving.logprobs(0, True, level)
    weights_NT, scores_NTD = (new - in_context).exp().detach(), world.scores(0, False, level)
    for chance, plain, guided in all_groups(world, 0, trigger):
        total += chance
        rows, guided_G = plain + guided, torch.tensor([False] * len(plain) + [True] * len(guided))
        rewards = [float(world.correct_PN[0, y]) for y in rows]
        advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64), guided_G)
        old = torch.cat([new[plain], in_context[guided]]).detach()
        ones_G = torch.ones(len(rows), dtype=torch.float64)
        value, _ = policy_loss(
            Logprobs(new[rows], old),
            advantages,
            guided_G,
            old.isfinite(),
            ones_G / world.k,
            **loss_settings(LossConfig()),
        )
        loss = loss + chance * value
        if len(set(rewards)) > 1:
            for y, reward, is_guided in zip(rows, rewards, guided_G.tolist(), strict=True):
                advantage = (reward - fmean(rewards)) / (stdev(rewards) + 1e-6)
                weight_T = weights_NT[y] if is_guided else torch.ones_like(weights_NT[y])
                by_hand += chance * advantage / world.k * (weight_T @ scores_NTD[y])
    update = expected_update(world, 0, trigger, level)
    assert total == pytest.approx(1)
    torch.testing.assert_close(-torch.autograd.grad(loss, theta)[0].flatten(), update, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(by_hand, update, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("trigger", ["never", "all_incorrect", "always"])
def test_at_sequence_level_the_expected_update_is_c_times_the_gradient_of_p(trigger):
    world = small_world(seed=1, vocabulary=3, length=3, k=3)
    expected = sum(coefficients(world, 1, trigger)) * world.success_gradient(1)
    torch.testing.assert_close(expected_update(world, 1, trigger, "sequence"), expected, rtol=1e-10, atol=1e-14)


def test_ratio_level_sequence_of_the_loss_is_equations_12_and_13():
    world = small_world(seed=1, vocabulary=3, length=3, k=3)
    beside, failed, guided = coefficients(world, 1, "all_incorrect")
    expected = (beside + failed + guided) * world.success_gradient(1)
    update = expected_update(world, 1, "all_incorrect", ratio_level="sequence")
    torch.testing.assert_close(update, expected, rtol=1e-10, atol=1e-14)


def test_the_gradient_of_p_is_its_slope():
    world, h = small_world(), 1e-6
    for i, slope in enumerate(world.success_gradient(0).tolist()):
        step = torch.zeros(world.theta.numel(), dtype=torch.float64)
        step[i] = h
        up, down = (replace(world, theta=world.theta + sign * step.reshape(world.theta.shape)) for sign in (1, -1))
        assert float(up.success(0) - down.success(0)) / (2 * h) == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_ratio_variances_are_those_of_all_sequences(length):
    world = small_world(vocabulary=3, length=length)
    chances_N = world.chances(0, True)
    for level, variance in zip(
        LEVELS, ratio_variances(world.table(0, False), world.table(0, True), length), strict=True
    ):
        ratios_NT = (world.logprobs(0, False, level) - world.logprobs(0, True, level)).exp()
        assert float(chances_N @ ratios_NT.mean(1)) == pytest.approx(1)
        assert float(chances_N @ (ratios_NT - 1).square().mean(1)) == pytest.approx(variance)


def test_sequences_are_all_of_them_once():
    assert sequences(3, 2).tolist() == [[a, b] for a in range(3) for b in range(3)]


@pytest.mark.parametrize("name", tables.TABLES)
def test_the_pages_tables_are_what_the_code_computes(name):
    assert tables.fill(PAGE, name, tables.TABLES[name]()) == PAGE, "python -m guide_rl.theory.tables docs/theory.md"


@pytest.mark.e2e
def test_the_pages_table_of_ratios_is_what_its_command_writes():
    spec = importlib.util.spec_from_file_location("ratio_variance", ROOT / "benchmarks/ratio_variance.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    assert tables.fill(PAGE, "ratio variance", benchmark.table()) == PAGE, (
        "python benchmarks/ratio_variance.py docs/theory.md"
    )


def test_every_table_of_the_page_has_its_code():
    assert PAGE.count("<!-- table ") == len(tables.TABLES) + 1


CHANCES = (0.001, 0.02, 0.1, 0.3, 0.6, 0.9, 0.999)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_what_the_page_says_of_every_success_probability(k):
    """One problem, sequence level: guidance adds a positive multiple of grad p; A~ fail is above A~ succ."""
    for p, guided_p in product(CHANCES, CHANCES):
        world = World.of([[[p, 1 - p]] * 3], [[[guided_p, 1 - guided_p]] * 3], ["0"], 1, k)
        vanilla, *added = coefficients(world, 0, "all_incorrect")
        assert vanilla == pytest.approx(sum(coefficients(world, 0, "never")))
        assert min(added) > 0
        fail, success = (guided_advantage(world, 0, failed=failed) for failed in (True, False))
        assert fail > max(0, success)


def rows(name: str) -> list[SimpleNamespace]:
    """The body of one of the page's tables, numbers by column: c0, c1, ..."""
    return [SimpleNamespace(**{f"c{i}": cell for i, cell in enumerate(row)}) for row in tables.TABLES[name]()]


def test_what_the_page_says_of_the_opposed_problems_and_of_another_way():
    opposed, another = rows("counterexamples")
    assert opposed.c5 < opposed.c4, "terms across problems can make Guide's gain the smaller"
    assert another.c6 < another.c4 < another.c5, "and so can the token-level ratio within one problem"


def test_what_the_page_says_of_lemma_2():
    first, *others = rows("lemma 2")
    assert all(row.c4 < 0 and row.c3 < 0 and row.c3 != pytest.approx(row.c4, rel=0.1) for row in [first, *others])
    assert first.c5 > 0 > max(row.c5 for row in others), "(20) holds for the first problem alone"
    assert all(row.c6 < 0 for row in [first, *others])


def test_what_the_page_says_of_the_guided_term():
    assert all(row.c2 < 0 < row.c1 for row in rows("guided term"))
    assert [row.c3 for row in rows("orders")] == pytest.approx([2, 2, 4 / 3, 1], abs=2e-3)
