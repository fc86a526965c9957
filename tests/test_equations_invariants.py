"""What must hold of the loss whatever the numbers: nothing guided is GRPO, padding is nothing, micro-batches add up."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loss_batches import FULL, PAPER, Batch, padded, random_groups

from guide_rl.equations.losses import AGGREGATIONS

GUIDED_ONLY = [
    {"guided_ratio": "plain"},
    {"guided_ratio": "in_context"},
    {"guided_ratio": "none"},
    {"guided_ratio": "truncated"},
    {"guided_ratio": "truncated", "ratio_cap": 0.01},
    {"clip_guided": True},
    {"reshape": "static"},
    {"reshape": "static", "reshape_constant": 5.0, "reshape_as": "weight"},
    {"reshape": "adaptive"},
    {"reshape": "adaptive", "reshape_percentile": 70.0, "reshape_as": "weight"},
    {"kl_rows": "plain"},
    {"ratio_level": "sequence"},
    {"ratio_level": "gspo"},
]
SHAPE = [[3, 2, 4, 1], [2, 3], [5, 0, 1]]


def loss_and_gradients(batch: Batch, settings: dict) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss, _ = batch.loss(settings)
    loss.backward()
    return loss, batch.gradients()


def textbook_grpo(batch: Batch, beta: float, entropy_coef: float) -> torch.Tensor:
    """Equation 4 as it is usually written, with a mask multiplied in: no guided rows, no guided code."""
    ratio_NT = torch.exp(batch.new_plain - batch.old)
    advantages_N1 = batch.advantages[:, None]
    surrogate_NT = torch.min(ratio_NT * advantages_N1, ratio_NT.clamp(0.8, 1.2) * advantages_N1)
    log_ratio_NT = batch.ref - batch.new_plain
    kl_NT = torch.expm1(log_ratio_NT) - log_ratio_NT

    def aggregated(values_NT: torch.Tensor) -> torch.Tensor:
        return ((values_NT * batch.mask).sum(1) * batch.weights.to(values_NT.dtype)).sum()

    return -aggregated(surrogate_NT) + beta * aggregated(kl_NT) - entropy_coef * aggregated(batch.entropy)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_guided_rows_the_loss_is_textbook_grpo_bit_for_bit(aggregation, dtype):
    groups = random_groups(5, SHAPE, guided_from=99)
    batch = padded(groups, aggregation=aggregation, dtype=dtype)
    loss, gradients = loss_and_gradients(batch, FULL)
    reference = padded(groups, aggregation=aggregation, dtype=dtype)
    expected = textbook_grpo(reference, FULL["beta"], FULL["entropy_coef"])
    expected.backward()
    assert torch.equal(loss, expected)
    assert all(map(torch.equal, gradients, reference.gradients()))


@pytest.mark.parametrize("changed", GUIDED_ONLY, ids=str)
def test_guided_only_switches_change_no_bit_when_nothing_is_guided(changed):
    plain = random_groups(6, SHAPE, guided_from=99)
    expected_loss, expected_gradients = loss_and_gradients(padded(plain, dtype=torch.float32), FULL)
    batch = dataclasses.replace(padded(plain, dtype=torch.float32), old_plain=None)
    loss, gradients = loss_and_gradients(batch, {**FULL, **changed})
    assert torch.equal(loss, expected_loss)
    assert all(map(torch.equal, gradients, expected_gradients))


@pytest.mark.parametrize("changed", GUIDED_ONLY, ids=str)
def test_guided_only_switches_do_change_the_loss_of_guided_rows(changed):
    loss, _ = padded(random_groups(3, SHAPE, guided_from=2)).loss({**FULL, **changed})
    expected, _ = padded(random_groups(3, SHAPE, guided_from=2)).loss(FULL)
    assert abs(loss.item() - expected.item()) > 1e-3


@pytest.mark.parametrize("changed", [{}, *GUIDED_ONLY], ids=str)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_poisoned_padding_changes_neither_loss_nor_gradient(changed, poison):
    groups = random_groups(7, SHAPE, guided_from=2)
    expected_loss, expected_gradients = loss_and_gradients(padded(groups, padding=-0.5), {**FULL, **changed})
    batch = padded(groups, padding=poison)
    loss, gradients = loss_and_gradients(batch, {**FULL, **changed})
    assert torch.isfinite(loss)
    assert torch.equal(loss, expected_loss)
    assert all(map(torch.equal, gradients, expected_gradients))
    assert all((gradient[~batch.mask] == 0).all() for gradient in gradients)
    sums, expected_sums = batch.loss({**FULL, **changed})[1], padded(groups).loss({**FULL, **changed})[1]
    for field in dataclasses.fields(sums):
        assert torch.equal(getattr(sums, field.name), getattr(expected_sums, field.name)), field.name


@pytest.mark.parametrize("poison", [math.nan, 1e4])
@pytest.mark.parametrize(
    ("guided_ratio", "field", "rows"),
    [
        ("sampling", "new_guided", "all"),
        ("sampling", "old_plain", "all"),
        ("plain", "old_plain", "plain"),
        ("in_context", "new_guided", "plain"),
        ("in_context", "new_plain", "guided"),
    ],
)
def test_log_probs_that_a_row_does_not_need_are_not_read(guided_ratio, field, rows, poison):
    settings = {**PAPER, "beta": 0.2, "guided_ratio": guided_ratio, "kl_rows": "plain"}
    groups = random_groups(8, SHAPE, guided_from=2)
    expected_loss, expected_gradients = loss_and_gradients(padded(groups), settings)
    batch = padded(groups)
    unread_N = {"all": torch.ones_like(batch.guided), "plain": ~batch.guided, "guided": batch.guided}[rows]
    with torch.no_grad():
        getattr(batch, field)[unread_N] = poison
    loss, gradients = loss_and_gradients(batch, settings)
    assert torch.equal(loss, expected_loss)
    assert all(map(torch.equal, gradients, expected_gradients))


@given(
    seed=st.integers(0, 10**6),
    shape=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=3).filter(
        lambda shape: any(map(sum, shape))
    ),
    guided_from=st.integers(0, 4),
    cuts=st.lists(st.integers(0, 12), max_size=3),
    aggregation=st.sampled_from(sorted(AGGREGATIONS)),
    changed=st.sampled_from([{}, *GUIDED_ONLY]),
)
@hypothesis_settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_micro_batches_add_up_to_the_mini_batch(seed, shape, guided_from, cuts, aggregation, changed):
    settings = {**FULL, **changed}
    groups = random_groups(seed, shape, guided_from)
    whole = padded(groups, seed=seed, aggregation=aggregation)
    loss, gradients = loss_and_gradients(whole, settings)
    _, sums = whole.loss(settings)

    split = padded(groups, seed=seed, aggregation=aggregation)
    rows_N = torch.randperm(len(split.guided), generator=torch.Generator().manual_seed(seed))
    parts = [part for part in rows_N.tensor_split(sorted(cuts)) if len(part)]
    results = [split.rows(part).loss(settings) for part in parts]
    for part_loss, _ in results:
        part_loss.backward()
    assert sum(part_loss.item() for part_loss, _ in results) == pytest.approx(loss.item(), rel=1e-12, abs=1e-12)
    for found, expected in zip(split.gradients(), gradients, strict=True):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)

    added = results[0][1]
    for _, part_sums in results[1:]:
        added = added + part_sums
    for field in dataclasses.fields(sums):
        found, expected = getattr(added, field.name), getattr(sums, field.name)
        assert torch.allclose(found.sort().values.double(), expected.sort().values.double(), atol=1e-12), field.name


@pytest.mark.parametrize("changed", [{}, *GUIDED_ONLY], ids=str)
def test_rows_of_zero_advantage_have_no_gradient_without_kl_and_entropy(changed):
    batch = padded(random_groups(9, SHAPE, guided_from=2))
    batch.advantages[::2] = 0.0
    _, gradients = loss_and_gradients(batch, {**PAPER, **changed})
    assert all((gradient[::2] == 0).all() for gradient in gradients)
    assert any((gradient[1::2] != 0).any() for gradient in gradients)


def test_what_the_loss_reports_carries_no_gradient():
    _, sums = padded(random_groups(9, SHAPE, guided_from=2)).loss(FULL)
    assert not any(getattr(sums, field.name).requires_grad for field in dataclasses.fields(sums))
