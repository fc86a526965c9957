"""The critic: values of plain prompts, returns and advantages token by token; PPO and Guide-PPO learn with it."""

from dataclasses import replace

import pytest
import torch
from toy_run import trainer, write_inputs

from guide_rl.equations.advantages import gae, sample_reinforcement, whiten
from guide_rl.equations.losses import clip_binds, clipped_surrogate, value_loss_NT
from guide_rl.interrupts import Interrupts
from guide_rl.logprobs import Row
from guide_rl.trainers.engine import NonFiniteLoss
from guide_rl.trainers.minibatches import build_minibatches
from guide_rl.types import Grade, Problem, Rollout

PPO = ("loss.advantages=gae", "loss.filter_uniform=false")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture
def folder(inputs, tmp_path):
    for path in inputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def plain_gae(reward: float, values: list[float], gamma: float, lam: float) -> list[float]:
    """The definition, as a double sum."""
    ends = [*values, 0.0]
    deltas = [(reward if t == len(values) - 1 else 0.0) + gamma * ends[t + 1] - ends[t] for t in range(len(values))]
    return [sum((gamma * lam) ** n * deltas[t + n] for n in range(len(values) - t)) for t in range(len(values))]


def test_gae_of_three_tokens_worked_by_hand():
    """V = 0.5, 0.4, 0.3, r = 1, gamma 0.9, lambda 0.8: deltas -0.14, -0.13, 0.7; A_2 = 0.7, A_1 = -0.13 + 0.72 * 0.7."""
    advantages = gae(1.0, torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64), gamma=0.9, lam=0.8)
    assert advantages.tolist() == pytest.approx([-0.14 + 0.72 * 0.374, 0.374, 0.7])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.7, 0.0)])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_gae_is_its_double_sum(gamma, lam, length):
    values = torch.randn(length, generator=torch.Generator().manual_seed(length), dtype=torch.float64)
    expected = plain_gae(0.5, values.tolist(), gamma, lam)
    assert gae(0.5, values, gamma=gamma, lam=lam).tolist() == pytest.approx(expected, abs=1e-12)


def test_with_lambda_and_gamma_1_the_return_is_the_reward():
    values = torch.rand(5)
    assert (gae(1.0, values, gamma=1.0, lam=1.0) + values).tolist() == pytest.approx([1.0] * 5)


def test_gae_gives_no_gradient():
    assert not gae(1.0, torch.rand(3, requires_grad=True), gamma=1.0, lam=0.9).requires_grad


def test_whitening_is_over_all_tokens_of_all_rollouts():
    white = torch.cat(whiten([torch.tensor([1.0, 2.0]), torch.tensor([6.0])]))
    assert white.mean().item() == pytest.approx(0, abs=1e-6)
    assert white.std(correction=1).item() == pytest.approx(1, abs=1e-6)
    assert white.tolist() == pytest.approx([(v - 3) / 7**0.5 for v in (1, 2, 6)], abs=1e-6)
    assert whiten([torch.tensor([4.0])])[0].tolist() == [0.0]


def test_the_value_loss_is_half_the_squared_error_and_the_clip_takes_the_larger_one():
    new, old, returns = (torch.tensor([[x]], dtype=torch.float64) for x in (0.9, 0.2, 1.0))
    assert value_loss_NT(new, old, returns, None).item() == pytest.approx(0.005)
    assert value_loss_NT(new, old, returns, 0.5).item() == pytest.approx(0.5 * 0.3**2), "clipped to 0.7"
    assert value_loss_NT(new, old, torch.zeros_like(new), 0.5).item() == pytest.approx(0.5 * 0.9**2)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_value_loss_has_the_gradient_of_finite_differences(clip):
    generator = torch.Generator().manual_seed(0)
    new, old, returns = (torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    assert torch.autograd.gradcheck(
        lambda values: value_loss_NT(values, old, returns, clip).sum(), new.clone().requires_grad_(True)
    )


def test_a_value_that_has_moved_further_than_the_clip_gets_no_pull():
    new = torch.tensor([[0.9]], requires_grad=True)
    value_loss_NT(new, torch.tensor([[0.2]]), torch.tensor([[1.0]]), 0.5).sum().backward()
    assert new.grad.item() == 0


def test_psr_nsr_and_w_reinforce_by_hand():
    correct = torch.tensor([True, False, True])
    weights = {(1.0, 0.0): [1, 0, 1], (0.0, 1.0): [0, -1, 0], (0.1, 1.0): [0.1, -1, 0.1]}
    for (right, wrong), expected in weights.items():
        found = sample_reinforcement(correct, correct_weight=right, incorrect_weight=wrong)
        assert found.tolist() == pytest.approx(expected)


def groups_of(trained, marks: str):
    """The first two groups of a step, graded by marks: + or - a rollout."""
    groups, rest = [], list(marks)
    for group in sorted(trained.sample(1), key=lambda g: g.problem.id)[:2]:
        rollouts = tuple(r for r in group.rollouts if not r.guided)
        grades = tuple(Grade(float(mark == "+"), mark == "+") for mark in rest[: len(rollouts)])
        rest = rest[len(rollouts) :]
        groups.append(replace(group, rollouts=rollouts, grades=grades))
    return groups


@pytest.mark.parametrize(("advantages", "kept"), [("psr", "+"), ("nsr", "-"), ("w_reinforce", "+-")])
def test_left_out_rollouts_are_in_neither_the_sum_nor_the_normaliser(folder, advantages, kept):
    settings = (f"loss.advantages={advantages}", "loss.filter_uniform=false", "loss.aggregation=token_mean")
    trained = trainer(folder, *settings, "guidance.trigger=never")
    marks = "+--+----"
    groups = groups_of(trained, marks)
    (batch,) = build_minibatches(groups, trained.recipe, trained.engine.prompt_ids)
    rollouts = [r for group in groups for r in group.rollouts]
    counted = [r for r, mark in zip(rollouts, marks, strict=True) if mark in kept]
    assert [row.rollout for row in batch.counted] == counted
    weight = 1 / sum(len(r.token_ids) for r in counted)
    assert [row.weight for row in batch.rows] == pytest.approx([weight] * len(counted))
    expected = {"+": 0.1 if advantages == "w_reinforce" else 1.0, "-": -1.0}
    assert [row.advantage for row in batch.rows] == [expected[mark] for mark in marks if mark in kept]


def test_guided_rollouts_are_valued_under_the_plain_prompt(folder):
    trained = trainer(folder, *PPO, "guidance.trigger=always")
    torch.nn.init.normal_(trained.engine.policy_update.critic.head.weight)
    (batch,) = build_minibatches(trained.sample(1), trained.recipe, trained.engine.prompt_ids)
    metrics = trained.engine.policy_update.critic.judge(batch.counted)
    guided = next(row for row in batch.counted if row.guided)
    plain_prompt = trained.engine.prompt_ids(
        next(p for p in trained.problems if p.id == guided.rollout.problem_id), False
    )
    with torch.no_grad():
        expected, _ = trained.engine.policy_update.critic.values([Row(plain_prompt, guided.rollout.token_ids)])
        under_guidance, _ = trained.engine.policy_update.critic.values([guided.sampled])
    torch.testing.assert_close(guided.values, expected[0], atol=1e-5, rtol=1e-5)
    assert (guided.values - under_guidance[0]).abs().max() > 1e-3
    assert metrics["critic/explained_variance"] < 1
    tokens = torch.cat([row.advantage for row in batch.counted])
    assert tokens.mean().abs() < 1e-5, "whitened over plain and guided together"


@pytest.mark.parametrize("backbone", ["own", "shared"])
def test_the_critics_gradient_is_that_of_its_loss_written_out_token_by_token(folder, monkeypatch, backbone):
    """Over several micro-batches, with other values and returns than before the update."""
    returns = ("critic.gamma=0.9", "critic.lam=0.7", "critic.rows=plain", "guidance.trigger=always")
    loss_settings = (
        "critic.clip=0.05",
        "critic.coef=0.3",
        "optimizer.tokens_per_microbatch=60",
        f"critic.backbone={backbone}",
    )
    adamw = ("critic.learning_rate=0.125", "optimizer.betas=[0.5, 0.75]", "optimizer.weight_decay=0.25")
    trained = trainer(folder, *PPO, *returns, *loss_settings, *adamw, "optimizer.max_grad_norm=0.01")
    critic = trained.engine.policy_update.critic
    chosen = {name: critic.optimizer.defaults[name] for name in ("lr", "betas", "weight_decay")}
    assert {name: list(v) if name == "betas" else v for name, v in chosen.items()} == {
        "lr": 0.125, "betas": [0.5, 0.75], "weight_decay": 0.25
    }  # fmt: skip
    assert critic.head.bias.item() == 0
    torch.nn.init.normal_(critic.head.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    (batch,) = build_minibatches(trained.sample(1), trained.recipe, trained.engine.prompt_ids)
    critic.judge(batch.counted)
    torch.nn.init.constant_(critic.head.bias, 0.1)
    rows, loss = [row for row in batch.counted if not row.guided], torch.zeros(())
    for row in rows:
        ids, start = [*row.plain.prompt_ids, *row.plain.token_ids], len(row.plain.prompt_ids) - 1
        hidden = critic.policy.causal(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        advantages = plain_gae(row.reward, row.values.tolist(), 0.9, 0.7)
        for t, (old, advantage) in enumerate(zip(row.values.tolist(), advantages, strict=True)):
            new = critic.head(hidden[0, start + t])[0]
            errors = [(value - old - advantage) ** 2 for value in (new, new.clamp(old - 0.05, old + 0.05))]
            loss = loss + 0.5 * torch.maximum(*errors) / sum(len(r.plain.token_ids) for r in rows)
    shared = backbone == "shared"
    moved = [*critic.parameters, *(trained.engine.policy.model.parameters() if shared else ())]
    expected = torch.autograd.grad(loss, moved)
    clips = []
    clip = lambda parameters, norm: clips.append((parameters, norm)) or torch.ones(())  # noqa: E731
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    for parameter in critic.parameters:
        parameter.grad = torch.ones_like(parameter)  # of the step before
    metrics = critic.step(batch.counted)
    assert metrics["critic/loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert metrics["critic/clip_fraction"] > 0
    assert clips == [(critic.parameters, 0.01)]
    for parameter, gradient in zip(moved, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * (0.3 if shared else 1.0), atol=2e-6, rtol=1e-3)


def test_the_advantage_that_is_written_of_a_rollout_is_the_mean_over_its_tokens(folder):
    """Values are 0 at first, so with gamma and lambda 1 every token's advantage is the reward."""
    trained = trainer(folder, *PPO, "critic.lam=1.0", "critic.whiten=false")
    groups = trained.sample(1)
    rewards = {r.key: grade.reward for g in groups for r, grade in zip(g.rollouts, g.grades, strict=True)}
    assert set(rewards.values()) == {0, 1}
    assert trained.engine.update(groups, 1).advantages == rewards


def test_values_do_not_depend_on_later_tokens_nor_on_other_rows(folder):
    critic = trainer(folder, *PPO).engine.policy_update.critic
    torch.nn.init.normal_(critic.head.weight)
    rows = [Row((5, 6, 7), (8, 9, 10)), Row((5, 6, 7), (8, 9, 11)), Row((9,), (3,))]
    with torch.no_grad():
        together, mask = critic.values(rows)
        alone, _ = critic.values(rows[:1])
    torch.testing.assert_close(together[0], together[1])
    torch.testing.assert_close(together[0], alone[0], atol=1e-5, rtol=1e-5)
    assert together[2, 1:].tolist() == [0, 0]
    assert mask.sum(1).tolist() == [3, 3, 1]


@pytest.mark.parametrize("backbone", ["own", "shared"])
def test_while_warming_up_the_critic_learns_and_the_policy_does_not_move(folder, backbone):
    trained = trainer(folder, *PPO, "critic.warmup_steps=1", f"critic.backbone={backbone}", "guidance.trigger=always")
    before = {name: p.detach().clone() for name, p in trained.engine.policy.model.named_parameters()}
    updated = trained.engine.update(trained.sample(1), 1)
    assert all(torch.equal(before[name], p) for name, p in trained.engine.policy.model.named_parameters())
    assert trained.engine.policy_update.critic.head.weight.abs().max() > 0
    assert updated.metrics["optimizer_steps"] == 0
    assert updated.metrics["critic/loss"] > 0
    assert updated.metrics["ratio/mean"] > 0, "guided rollouts are logged all the same"
    trained.engine.update(trained.sample(2), 2)
    assert not all(torch.equal(before[name], p) for name, p in trained.engine.policy.model.named_parameters())


def test_a_critic_of_its_own_adds_nothing_to_the_policys_gradient_and_a_shared_one_does(folder):
    def gradient(*settings):
        trained = trainer(folder, *PPO, f"run={folder}/{len(list(folder.iterdir()))}", *settings)
        torch.nn.init.constant_(trained.engine.policy_update.critic.head.weight, 0.1)
        trained.engine.update(trained.sample(1), 1)
        return torch.cat([p.grad.flatten() for p in trained.engine.policy.model.parameters() if p.grad is not None])

    own, other = gradient(), gradient("critic.learning_rate=0.1")
    assert torch.equal(own, other)
    free, shared = (gradient("critic.backbone=shared", f"critic.coef={coef}") for coef in (0.0, 0.5))
    torch.testing.assert_close(own, free)
    assert (shared - free).abs().max() > 1e-4


def test_value_rows_plain_fits_the_critic_on_plain_rollouts_only(folder, monkeypatch):
    trained = trainer(folder, *PPO, "critic.rows=plain", "guidance.trigger=always")
    (batch,) = build_minibatches(trained.sample(1), trained.recipe, trained.engine.prompt_ids)
    critic = trained.engine.policy_update.critic
    critic.judge(batch.counted)
    seen = []
    values = critic.values
    monkeypatch.setattr(critic, "values", lambda rows, **more: seen.extend(rows) or values(rows, **more))
    critic.step(batch.counted)
    assert sorted(r.token_ids for r in seen) == sorted(row.plain.token_ids for row in batch.counted if not row.guided)
    assert all(row.values is not None for row in batch.counted), "guided ones are valued all the same"


@pytest.mark.parametrize("backbone", ["own", "shared"])
def test_a_resumed_run_has_the_critic_of_the_uninterrupted_one(folder, backbone):
    settings = (*PPO, "steps=4", "checkpoints.every=2", "guidance.trigger=always", f"critic.backbone={backbone}")
    whole = trainer(folder, *settings, f"run={folder}/whole")
    whole.fit()
    stopped = trainer(folder, *settings, f"run={folder}/stopped")
    with Interrupts() as interrupts:
        for _ in range(2):
            stopped.step(interrupts)
    stopped.save()
    resumed = trainer(folder, *settings, f"run={folder}/stopped", resume=True)
    resumed.fit()
    for one, other in zip(
        whole.engine.policy_update.critic.parameters, resumed.engine.policy_update.critic.parameters, strict=True
    ):
        assert torch.equal(one, other)
    assert whole.run.read("metrics.jsonl") == resumed.run.read("metrics.jsonl")


def test_a_batch_whose_loss_is_not_finite_is_written_with_an_advantage_a_token(folder, monkeypatch):
    trained = trainer(folder, *PPO)
    groups, clip = trained.sample(1), torch.nn.utils.clip_grad_norm_
    broken = lambda parameters, norm: clip(parameters, norm) * (float("nan") if len(parameters) > 2 else 1)  # noqa: E731
    monkeypatch.setattr(trained.engine.policy_update.critic, "step", lambda rows: {})
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", broken)
    with pytest.raises(NonFiniteLoss, match=r"gradient norm nan"):
        trained.engine.update(groups, 1)
    for line in trained.run.read("non_finite_step_000001.jsonl"):
        assert len(line["advantage"]) == len(line["token_ids"])


def test_one_advantage_a_token_is_the_same_as_one_a_row_where_they_are_equal():
    generator = torch.Generator().manual_seed(0)
    ratios = torch.rand(3, 4, generator=generator) * 2
    advantages, clip = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([True, True, False])
    settings = {"clip_low": 0.2, "clip_high": 0.2}
    by_token = advantages[:, None].expand(3, 4)
    for function in (clipped_surrogate, clip_binds):
        assert torch.equal(function(ratios, advantages, clip, **settings), function(ratios, by_token, clip, **settings))


def first_token_decides(problem: Problem, rollout: Rollout) -> bool:
    return bool(rollout.token_ids) and rollout.token_ids[0] >= 40


@pytest.mark.e2e
def test_ppo_learns_a_known_value_function_and_then_solves_the_problem(folder):
    """Whether a rollout is correct is settled by its first token: V = 1 or 0 after it, P(first token >= 40) before."""
    settings = ("guidance.trigger=never", "sampling.k=8", "problems_per_step=8", "steps=140", "optimizer.epochs=4")
    critic = ("critic.learning_rate=0.01", "critic.warmup_steps=110", "critic.lam=1.0", "critic.clip=null")
    trained = trainer(folder, *PPO, *settings, *critic, "optimizer.learning_rate=0.002", correct=first_token_decides)
    with Interrupts() as interrupts:
        while trained.step_done < 110:
            trained.step(interrupts)
        (batch,) = build_minibatches(trained.sample(111), trained.recipe, trained.engine.prompt_ids)
        trained.engine.policy_update.critic.judge(batch.counted)
        errors, truths = [], []
        for row in batch.counted:
            logits = trained.engine.policy.causal(torch.tensor([row.plain.prompt_ids])).logits[0, -1].softmax(-1)
            true = torch.full_like(row.values, float(row.reward))
            true[0] = logits[40:].sum().item()
            truths.append(true)
            errors.append(true - row.values)
        explained = 1 - torch.cat(errors).var() / torch.cat(truths).var()
        assert explained > 0.9
        while trained.step_done < 140:
            trained.step(interrupts)
    last = [row["accuracy/plain"] for row in trained.run.read("metrics.jsonl")][-3:]
    assert min(last) > 0.95


@pytest.mark.parametrize("advantages", ["psr", "nsr", "w_reinforce", "gae"])
def test_filtering_uniform_groups_is_refused_where_they_teach(folder, advantages):
    with pytest.raises(ValueError, match=rf"loss\.filter_uniform .*{advantages}.*set it to false"):
        trainer(folder, f"loss.advantages={advantages}", "loss.filter_uniform=true")
