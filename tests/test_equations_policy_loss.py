"""The whole loss (equation 6) against a number by hand, the slow twin and finite differences."""

import dataclasses
import itertools
import math

import pytest
import slow_twins
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loss_batches import FULL, MAX_TOKENS, PAPER, Batch, padded, random_groups

from guide_rl.equations.losses import AGGREGATIONS
from guide_rl.equations.ratios import GUIDED_RATIOS, LEVELLED, RESHAPED_AS

SHAPINGS = [("none", "surrogate"), *itertools.product(["static", "adaptive"], RESHAPED_AS)]
LEVEL_SETTINGS = ({}, {"clip_guided": True}, {"reshape": "static"}, {"reshape": "static", "reshape_as": "weight"})
GUIDED_VARIANTS = [
    *(
        {"guided_ratio": ratio, "reshape": how, "reshape_as": reading}
        for ratio, (how, reading) in itertools.product(GUIDED_RATIOS, SHAPINGS)
    ),
    *({"guided_ratio": ratio, "clip_guided": True} for ratio in GUIDED_RATIOS),
    *(
        {"guided_ratio": ratio, "ratio_level": level, **more}
        for ratio, level, more in itertools.product(LEVELLED, ("sequence", "gspo"), LEVEL_SETTINGS)
    ),
]
# A triggered group of two plain and two guided rollouts, and a plain group: scale k = 2 for both.
SHAPE, SCALES = [[3, 2, 4, 1], [2, 3]], [2.0, 2.0]


def variant_name(variant: dict) -> str:
    return "-".join(str(value) for value in variant.values())


def by_hand() -> Batch:
    """One problem, k = 1: a plain failure of two tokens and a guided success of one."""
    log = math.log
    plain = slow_twins.Row(
        guided=False,
        advantage=-1.0,
        new_plain=[log(0.3), log(0.4)],
        old=[log(0.6), log(0.4)],
        old_plain=[0.0, 0.0],
        new_guided=[0.0, 0.0],
        ref=[log(0.6), log(0.4)],
        entropy=[1.0, 0.5],
    )
    guided = slow_twins.Row(
        guided=True,
        advantage=1.0,
        new_plain=[log(0.4)],
        old=[log(0.8)],
        old_plain=[log(0.1)],
        new_guided=[log(0.2)],
        ref=[log(0.2)],
        entropy=[0.2],
    )
    return padded([[plain, guided]], scales=[1.0])


def test_the_loss_agrees_with_a_number_worked_out_by_hand():
    batch = by_hand()
    # plain: w = 0.5, 1; A = -1: min(-0.5, -0.8) = -0.8 and -1; mean -0.9. guided: w = 0.4/0.8, A = 1, unclipped: 0.5.
    # J = -0.9 + 0.5 = -0.4
    loss, sums = batch.loss(PAPER)
    assert loss.item() == pytest.approx(0.4)
    assert (sums.clipped.item(), sums.clippable.item()) == (1, 2)
    assert batch.loss({**PAPER, "clip_guided": True})[1].clippable.item() == 3
    # KL, plain row: d = log 2 and 0: (2 - log 2 - 1)/2; guided row (kl_rows all): d = -log 2: 0.5 + log 2 - 1
    plain_kl, guided_kl = (1 - math.log(2)) / 2, math.log(2) - 0.5
    assert batch.loss({**PAPER, "beta": 0.1})[0].item() == pytest.approx(0.4 + 0.1 * plain_kl)
    loss, sums = batch.loss({**PAPER, "beta": 0.1, "kl_rows": "all"})
    assert loss.item() == pytest.approx(0.4 + 0.1 * (plain_kl + guided_kl))
    assert (sums.kl.item(), sums.kl_tokens.item()) == (pytest.approx(2 * plain_kl + guided_kl), 3)
    # entropy: (1 + 0.5)/2 + 0.2 = 0.95
    loss, sums = batch.loss({**PAPER, "entropy_coef": 0.01})
    assert loss.item() == pytest.approx(0.4 - 0.0095)


# What the guided token (A = 1, new 0.4, old 0.8, old plain 0.1, new guided 0.2) adds to J; the plain row adds -0.9.
@pytest.mark.parametrize(
    ("changed", "guided_term"),
    [
        ({"guided_ratio": "plain"}, 4.0),  # 0.4 / 0.1
        ({"guided_ratio": "in_context"}, 0.25),  # 0.2 / 0.8
        ({"guided_ratio": "none"}, 1.0),
        ({"guided_ratio": "truncated", "ratio_cap": 0.3}, 0.3),
        ({"guided_ratio": "plain", "clip_guided": True}, 1.2),  # min(4, 1.2)
        ({"reshape": "static", "reshape_constant": 2.0}, 0.2),  # 0.5 / (2 + 0.5)
        ({"reshape": "static", "reshape_constant": 2.0, "reshape_as": "weight"}, 0.4),  # 1 / (2 + 0.5)
        ({"reshape": "adaptive"}, 0.5),  # the percentile of one number is itself: 0.5 / (0.5 + 0.5)
        ({"reshape": "adaptive", "reshape_as": "weight"}, 1.0),
    ],
    ids=lambda value: variant_name(value) if isinstance(value, dict) else "",
)
def test_every_guided_switch_agrees_with_a_number_worked_out_by_hand(changed, guided_term):
    assert by_hand().loss({**PAPER, **changed})[0].item() == pytest.approx(0.9 - guided_term)


@pytest.mark.parametrize(("level", "ratio"), [("token", 0.65), ("sequence", 0.4 / 2), ("gspo", math.sqrt(0.4))])
def test_a_rollouts_ratio_is_one_term_of_it_at_sequence_level(level, ratio):
    """Tokens of ratio 0.5 and 0.8, A = 1: their mean, half their product (one term over |r| = 2), its square root."""
    row = dataclasses.replace(by_hand_guided(), new_plain=[math.log(0.4), math.log(0.8)], old=[math.log(0.8), 0.0])
    loss, _ = padded([[row]], scales=[1.0]).loss({**PAPER, "ratio_level": level})
    assert loss.item() == pytest.approx(-ratio)


def by_hand_guided() -> slow_twins.Row:
    """A guided success of two tokens; what a test needs of it, it replaces."""
    return slow_twins.Row(True, 1.0, *([[0.0, 0.0]] * 6))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("variant", GUIDED_VARIANTS, ids=variant_name)
def test_loss_and_gradient_equal_the_slow_twin_and_its_finite_differences(variant, aggregation):
    settings = {**FULL, **variant}
    groups = random_groups(1, SHAPE, guided_from=2)
    batch = padded(groups, aggregation=aggregation, scales=SCALES, padding=math.nan)
    loss, _ = batch.loss(settings)
    loss.backward()

    def twin(rows) -> float:
        moved = [rows[: len(SHAPE[0])], rows[len(SHAPE[0]) :]]
        return slow_twins.policy_loss(moved, groups, settings, aggregation, SCALES, MAX_TOKENS)

    rows = [row for group in groups for row in group]
    assert loss.item() == pytest.approx(twin(rows), rel=1e-12)
    for name, gradient_NT in zip(("new_plain", "new_guided", "entropy"), batch.gradients(), strict=True):
        differences = [central_difference(twin, rows, n, name, t) for n, row in enumerate(rows) for t in range_of(row)]
        assert gradient_NT[batch.mask].tolist() == pytest.approx(differences, abs=1e-8), name
        assert (gradient_NT[~batch.mask] == 0).all(), name


def range_of(row: slow_twins.Row) -> range:
    return range(len(row.old))


def central_difference(function, rows, n: int, name: str, t: int, step: float = 1e-5) -> float:
    def moved(by: float) -> float:
        values = list(getattr(rows[n], name))
        values[t] += by
        return function([*rows[:n], dataclasses.replace(rows[n], **{name: values}), *rows[n + 1 :]])

    return (moved(step) - moved(-step)) / (2 * step)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("reshape", ["none", "static"])
@pytest.mark.parametrize("guided_ratio", ["sampling", "plain", "in_context"])
def test_variants_without_detached_parts_pass_gradcheck(guided_ratio, reshape, aggregation):
    settings = {**FULL, "guided_ratio": guided_ratio, "reshape": reshape}
    batch = padded(random_groups(2, SHAPE, guided_from=2), aggregation=aggregation, scales=SCALES)

    def loss(new_plain, new_guided, entropy):
        changed = dataclasses.replace(batch, new_plain=new_plain, new_guided=new_guided, entropy=entropy)
        return changed.loss(settings)[0]

    assert torch.autograd.gradcheck(loss, (batch.new_plain, batch.new_guided, batch.entropy))


@given(
    shape=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=3).filter(
        lambda shape: any(map(sum, shape))
    ),
    guided_from=st.integers(0, 4),
    seed=st.integers(0, 10**6),
    variant=st.sampled_from(GUIDED_VARIANTS),
    aggregation=st.sampled_from(sorted(AGGREGATIONS)),
    percentile=st.sampled_from([70.0, 80.0, 90.0]),
    kl_rows=st.sampled_from(["plain", "all"]),
)
@hypothesis_settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_the_loss_equals_the_slow_twin_for_any_shape(
    shape, guided_from, seed, variant, aggregation, percentile, kl_rows
):
    settings = {**FULL, **variant, "reshape_percentile": percentile, "kl_rows": kl_rows}
    groups = random_groups(seed, shape, guided_from)
    scales = [float(len(lengths)) for lengths in shape]
    batch = padded(groups, seed=seed, aggregation=aggregation, scales=scales, padding=math.nan)
    loss, _ = batch.loss(settings)
    expected = slow_twins.policy_loss(groups, groups, settings, aggregation, scales, MAX_TOKENS)
    assert loss.item() == pytest.approx(expected, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize(
    ("setting", "missing"), [({"beta": 0.1}, "ref_NT"), ({"entropy_coef": 0.1}, "entropies_NT")], ids=["kl", "entropy"]
)
def test_a_term_without_its_tensor_is_an_error_that_names_it(setting, missing):
    batch = dataclasses.replace(by_hand(), ref=None, entropy=None)
    with pytest.raises(ValueError, match=missing):
        batch.loss({**PAPER, **setting})


def test_terms_that_are_off_need_no_tensor():
    batch = by_hand()
    bare, sums = dataclasses.replace(batch, ref=None, entropy=None).loss(PAPER)
    assert torch.equal(bare, batch.loss(PAPER)[0])
    assert [int(x) for x in (sums.kl, sums.kl_tokens)] == [0, 0]


@pytest.mark.parametrize(("guided_ratio", "missing"), [("plain", "old_plain_NT"), ("in_context", "new_guided_NT")])
def test_a_guided_ratio_without_its_log_probs_is_an_error_that_names_them(guided_ratio, missing):
    batch = dataclasses.replace(by_hand(), old_plain=None, new_guided=None)
    with pytest.raises(ValueError, match=f"Logprobs.{missing}"):
        batch.loss({**PAPER, "guided_ratio": guided_ratio})


@pytest.mark.parametrize("reshape", ["static", "adaptive"])
def test_clipping_reshaped_ratios_is_an_error(reshape):
    with pytest.raises(ValueError, match="clip_guided"):
        by_hand().loss({**PAPER, "clip_guided": True, "reshape": reshape})


def test_before_the_first_update_the_clip_binds_nowhere():
    batch = padded(random_groups(3, SHAPE, guided_from=2))
    on_policy = dataclasses.replace(batch, old=torch.where(batch.guided[:, None], batch.old, batch.new_plain.detach()))
    _, sums = on_policy.loss(PAPER)
    assert sums.clipped == 0
