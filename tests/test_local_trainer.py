"""The local trainer: its loss is equation 6, and its switches do what they say."""

import itertools
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sandboxed import break_bubblewrap
from tiny_models import tiny_model, tiny_tokenizer
from toy_run import coin, linked, recipe, some_fail, trainer, write_inputs

import guide_rl.trainers.update as update
from guide_rl.algorithm import keeps_gradient
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.interrupts import Interrupts
from guide_rl.logprobs import Row
from guide_rl.metrics import group_metrics
from guide_rl.problems import load_problems, save_problems
from guide_rl.trainers.dry_run import dry_run
from guide_rl.trainers.export import export_checkpoint
from guide_rl.trainers.minibatches import build_minibatches
from guide_rl.trainers.trainer import train
from guide_rl.types import Grade


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture
def folder(inputs, tmp_path):
    return linked(inputs, tmp_path)


@pytest.fixture(scope="module")
def default_gradients(inputs, tmp_path_factory):
    """The gradient of the first step with no switch turned."""
    trained = trainer(linked(inputs, tmp_path_factory.mktemp("default")))
    trained.engine.update(trained.sample(1), 1)
    return gradients(trained)


def weights(trained) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trained.engine.policy.model.named_parameters()}


def gradients(trained) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in trained.engine.policy.model.named_parameters() if p.grad is not None}


def run_steps(trained, steps: int) -> None:
    with Interrupts() as interrupts:
        for _ in range(steps):
            trained.step(interrupts)


def spy_on_loss(monkeypatch) -> list:
    """Records what the trainer passes to the loss, and passes it on."""
    calls = []

    def spy(logprobs, advantages_N, guided_N, mask_NT, weights_N, **settings):
        calls.append((logprobs, advantages_N, guided_N, mask_NT, weights_N))
        return policy_loss(logprobs, advantages_N, guided_N, mask_NT, weights_N, **settings)

    policy_loss = update.policy_loss
    monkeypatch.setattr(update, "policy_loss", spy)
    return calls


def textbook_loss(trained, groups, k: int) -> torch.Tensor:
    """Equation 6 with the filter, rollout by rollout and token by token, from the model's own logits, before any update."""

    def logprobs(prompt, tokens):
        ids = torch.tensor([[*prompt, *tokens]])
        logits = trained.engine.policy.model(ids).logits[0].log_softmax(-1)
        return [logits[len(prompt) + t - 1, token] for t, token in enumerate(tokens)]

    kept = [group for group in groups if keeps_gradient(group, filter_uniform=True)]
    loss = torch.zeros(())
    for group in kept:
        rewards = torch.tensor(group.rewards_G, dtype=torch.float64)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        plain_prompt = trained.engine.prompt_ids.prompts.plain_ids(group.problem)
        for rollout, advantage in zip(group.rollouts, advantages.tolist(), strict=True):
            new = logprobs(plain_prompt, rollout.token_ids)
            with torch.no_grad():
                old = logprobs(rollout.prompt_ids, rollout.token_ids)
            for new_t, old_t in zip(new, old, strict=True):
                w = (new_t - old_t).exp()
                surrogate = w * advantage
                if not rollout.guided:
                    surrogate = torch.minimum(surrogate, w.clamp(0.8, 1.2) * advantage)
                loss = loss - surrogate / (len(rollout.token_ids) * k * len(kept))
    return loss


def test_loss_and_gradient_are_equation_6_on_plain_and_guided_rows(folder):
    trained = trainer(folder, "optimizer.max_grad_norm=1e9")
    groups = trained.sample(1)
    assert any(group.triggered and not group.uniform for group in groups)
    loss = textbook_loss(trained, groups, k=4)
    loss.backward()
    expected = gradients(trained)
    metrics = trained.engine.update(groups, 1).metrics
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-6)
    for name, gradient in gradients(trained).items():
        torch.testing.assert_close(gradient, expected[name], atol=2e-6, rtol=1e-3)


def test_before_the_first_update_ratios_are_1_on_plain_rows_and_not_on_guided_rows(folder, monkeypatch):
    calls = spy_on_loss(monkeypatch)
    trained = trainer(folder, "optimizer.problems_per_minibatch=2")
    trained.engine.update(trained.sample(1), 1)
    first, second = calls[0], calls[-1]
    for logprobs, _, guided_N, mask_NT, _ in (first,):
        log_ratio_NT = (logprobs.new_plain_NT - logprobs.old_NT).detach()
        assert (log_ratio_NT[~guided_N] == 0).all()
        if guided_N.any():
            assert log_ratio_NT[guided_N][mask_NT[guided_N]].abs().max() > 1e-3
    assert any(call[2].any() for call in calls)
    logprobs, _, guided_N, mask_NT, _ = second
    moved = (logprobs.new_plain_NT - logprobs.old_NT).detach()[~guided_N]
    assert moved[mask_NT[~guided_N]].abs().max() > 1e-3, "the policy has moved when the second mini-batch comes"


def test_recomputed_old_logprobs_of_later_minibatches_are_the_sampling_policys(folder, monkeypatch):
    calls = spy_on_loss(monkeypatch)
    trained = trainer(
        folder, "optimizer.problems_per_minibatch=1", "loss.filter_uniform=false", "loss.entropy_coef=0.001"
    )
    groups = trained.sample(1)
    trained.engine.update(groups, 1)
    sampled = {rollout.logprobs for group in groups for rollout in group.rollouts}
    for logprobs, *_, mask_NT, _ in calls:
        for old_T, mask_T in zip(logprobs.old_NT, mask_NT, strict=True):
            closest = min(
                (max(abs(a - b) for a, b in zip(old_T[mask_T].tolist(), own, strict=True)), own)
                for own in sampled
                if len(own) == int(mask_T.sum())
            )
            assert closest[0] < 1e-5


def test_the_plain_ratio_divides_by_what_the_plain_prompt_gave_before_the_update(folder, monkeypatch):
    calls = spy_on_loss(monkeypatch)
    settings = ("loss.guided_ratio=plain", "guidance.trigger=always", "optimizer.problems_per_minibatch=2")
    trained = trainer(folder, *settings, correct=coin)
    groups = trained.sample(1)
    rows = [
        Row(trained.engine.prompt_ids(g.problem, False), r.token_ids) for g in groups for r in g.rollouts if r.guided
    ]
    before = trained.engine.policy_update.scorer.score_all(trained.engine.policy, rows)
    trained.engine.update(groups, 1)
    for logprobs, _, guided_N, mask_NT, _ in calls:
        for old_T, mask_T in zip(logprobs.old_plain_NT[guided_N], mask_NT[guided_N], strict=True):
            same_length = [own_T for own_T in before if len(own_T) == int(mask_T.sum())]
            assert min((old_T[mask_T] - own_T).abs().max() for own_T in same_length) < 1e-5


def test_in_context_compares_guided_rows_under_guidance(folder, monkeypatch):
    calls = spy_on_loss(monkeypatch)
    trained = trainer(folder, "loss.guided_ratio=in_context", "guidance.trigger=always", correct=coin)
    trained.engine.update(trained.sample(1), 1)
    for logprobs, _, guided_N, mask_NT, _ in calls:
        guided_NT = mask_NT & guided_N[:, None]
        under_guidance, plain = (new - logprobs.old_NT for new in (logprobs.new_guided_NT, logprobs.new_plain_NT))
        assert under_guidance[guided_NT].abs().max() < 1e-5, "the ratio is 1 before the first update"
        assert plain[guided_NT].abs().max() > 1e-3


GUIDED_ONLY = {
    "reshape": ("loss.reshape=adaptive",),
    "level": ("loss.ratio_level=sequence", "loss.clip_guided=true", "guidance.keep_guided=successful"),
    "share": ("guidance.dropout=0.5", "guidance.anneal_steps=3", "loss.guided_ratio=plain"),
    "no ratio": ("loss.guided_ratio=none", "log_ratios=false"),
}


@pytest.mark.parametrize("switches", GUIDED_ONLY.values(), ids=GUIDED_ONLY)
def test_guide_is_grpo_bit_for_bit_when_nothing_was_guided(folder, tmp_path, switches):
    never_uniform = lambda problem, rollout: rollout.index % 2 == 0  # noqa: E731
    guided = trainer(folder, f"run={folder}/guided", *switches, correct=never_uniform)
    plain = trainer(folder, f"run={folder}/plain", "guidance.trigger=never", correct=never_uniform)
    run_steps(guided, 2)
    run_steps(plain, 2)
    for name, weight in weights(guided).items():
        assert torch.equal(weight, weights(plain)[name])


@pytest.mark.parametrize("setting", ["optimizer.tokens_per_microbatch=40", "model.gradient_checkpointing=true"])
def test_memory_settings_change_no_gradient(folder, setting):
    plain, saving = trainer(folder, f"run={folder}/a"), trainer(folder, f"run={folder}/b", setting)
    groups = plain.sample(1)
    plain.engine.update(groups, 1)
    saving.engine.update(groups, 1)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(saving)[name], gradient, atol=2e-6, rtol=1e-3)


def test_a_step_that_the_filter_empties_moves_nothing_and_is_logged(folder):
    trained = trainer(folder, "optimizer.weight_decay=0.1", correct=lambda problem, rollout: False)
    before = weights(trained)
    metrics = trained.engine.update(trained.sample(1), 1).metrics
    assert metrics["optimizer_steps"] == 0
    assert all(torch.equal(weight, before[name]) for name, weight in weights(trained).items())


def test_without_the_filter_uniform_groups_still_step_the_optimizer_and_dilute_the_loss(folder):
    settings = ("optimizer.weight_decay=0.1", "loss.filter_uniform=false", "guidance.trigger=never")
    all_wrong = trainer(folder, f"run={folder}/a", *settings, correct=lambda problem, rollout: False)
    before = weights(all_wrong)
    metrics = all_wrong.engine.update(all_wrong.sample(1), 1).metrics
    assert metrics["optimizer_steps"] == 1
    assert metrics["grad_norm"] == 0
    assert not all(torch.equal(weight, before[name]) for name, weight in weights(all_wrong).items())

    one_mixed = lambda problem, rollout: problem.id == "0" and rollout.index == 0  # noqa: E731
    norms = {}
    for filtered in ("true", "false"):
        settings = (f"loss.filter_uniform={filtered}", "guidance.trigger=never", "problems_per_step=8")
        trained = trainer(folder, f"run={folder}/filter-{filtered}", *settings, correct=one_mixed)
        norms[filtered] = trained.engine.update(trained.sample(1), 1).metrics["grad_norm"]
    assert norms["true"] == pytest.approx(8 * norms["false"], rel=1e-4)


def test_masked_truncated_rollouts_leave_the_loss(folder, monkeypatch):
    calls = spy_on_loss(monkeypatch)
    trained = trainer(folder, "grading.truncated=masked", "sampling.max_tokens=6", correct=coin)
    groups = trained.sample(1)
    finishes = [rollout.finish for group in groups for rollout in group.rollouts]
    assert "length" in finishes
    trained.engine.update(groups, 1)
    kept = {
        rollout.token_ids
        for group in groups
        if not group.uniform
        for rollout in group.rollouts
        if rollout.finish != "length"
    }
    trained_lengths = sorted(int(mask_T.sum()) for call in calls for mask_T in call[3])
    assert trained_lengths == sorted(len(tokens) for tokens in kept)


def test_kl_is_0_at_the_reference_and_positive_after_a_step(folder):
    trained = trainer(folder, "loss.beta=0.1", "steps=2")
    run_steps(trained, 2)
    first, second = trained.run.read("metrics.jsonl")
    assert first["kl"] == pytest.approx(0, abs=1e-9)
    assert second["kl"] > 0


def test_the_reference_policy_is_refreshed_on_time(folder):
    trained = trainer(folder, "loss.beta=0.1", "loss.reference_every=2", "steps=3")
    run_steps(trained, 3)
    kl = [row["kl"] for row in trained.run.read("metrics.jsonl")]
    assert kl[0] == pytest.approx(0, abs=1e-9)
    assert kl[1] > 1e-7
    assert kl[2] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "override",
    [
        "loss.guided_ratio=plain",
        "loss.guided_ratio=in_context",
        "loss.guided_ratio=none",
        "loss.guided_ratio=truncated",
        "loss.ratio_level=sequence",
        "loss.ratio_level=gspo",
        "loss.clip_guided=true",
        "loss.reshape=static",
        "loss.baseline=plain",
        "loss.baseline=leave_one_out",
        "loss.aggregation=token_mean",
        "loss.aggregation=constant",
        "loss.group_scale=size",
        "loss.normalize_std=false",
        "guidance.keep_guided=successful",
        "guidance.trigger=always",
        "guidance.trigger=only_guided",
        "loss.old_logprobs=sampler",
        "loss.entropy_coef=0.01",
    ],
)
def test_every_switch_changes_the_gradient_of_a_guided_step(folder, default_gradients, override):
    switched = trainer(folder, override)
    switched.engine.update(switched.sample(1), 1)
    assert any(not torch.equal(g, default_gradients[name]) for name, g in gradients(switched).items())
    if override == "loss.old_logprobs=sampler":  # cheaper, and the same but for rounding
        for name, gradient in gradients(switched).items():
            torch.testing.assert_close(gradient, default_gradients[name], atol=1e-4, rtol=1e-2)


def test_a_non_finite_loss_stops_before_the_optimizer_and_saves_the_batch(folder):
    trained = trainer(folder, "loss.old_logprobs=sampler")
    before = weights(trained)
    groups = [
        replace(group, rollouts=tuple(replace(r, logprobs=(-1e4,) * len(r.logprobs)) for r in group.rollouts))
        for group in trained.sample(1)
    ]
    with pytest.raises(update.NonFiniteLoss, match=r"Lower optimizer.learning_rate.*model.path") as error:
        trained.engine.update(groups, 1)
    saved = trained.run.path / "non_finite_step_000001.jsonl"
    assert str(saved) in str(error.value)
    assert all("advantage" in json.loads(line) for line in saved.read_text().splitlines())
    assert all(torch.equal(weight, before[name]) for name, weight in weights(trained).items())


def test_lora_trains_the_adapter_only_and_merges_on_export(folder):
    from transformers import AutoModelForCausalLM

    trained = trainer(folder, "model.lora.rank=4", "steps=2", "loss.beta=0.05")
    base = {name: w for name, w in weights(trained).items() if "lora" not in name}
    trained.fit()
    assert all(torch.equal(weight, base[name]) for name, weight in weights(trained).items() if "lora" not in name)
    ids = torch.arange(6, 20)[None]
    expected = trained.engine.policy.model(ids).logits
    exported = folder / "exported"
    export_checkpoint(trained.run.path, exported)
    for path in (exported, trained.run.path / "model", trained.run.latest_checkpoint()):
        loaded = AutoModelForCausalLM.from_pretrained(path)
        torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert not (exported / "adapter_config.json").exists()


def test_a_checkpoint_is_a_model_folder_that_another_run_starts_from(folder):
    first = trainer(folder, "steps=2")
    first.fit()
    second = trainer(folder, f"run={folder}/second", f"model.path={first.run.latest_checkpoint()}")
    assert second.step_done == 0
    assert all(torch.equal(weight, weights(first)[name]) for name, weight in weights(second).items())


def test_the_best_and_the_last_checkpoints_stay(folder):
    trained = trainer(
        folder,
        "steps=6",
        "checkpoints.every=1",
        "checkpoints.keep_last=2",
        "evaluation.every=1",
        f"problems.evaluation={folder}/train.jsonl",
        correct=lambda problem, rollout: trained.step_done == 2 or coin(problem, rollout),
    )
    trained.fit()
    assert trained.best_step == 2
    assert [path.name for path in sorted(trained.run.checkpoints.iterdir())] == [
        "step-000002",
        "step-000005",
        "step-000006",
    ]


def test_a_budget_stops_the_run_after_the_step_that_spends_it(folder):
    trained = trainer(folder, "steps=50", "budget.rollouts=33", "guidance.trigger=never")
    trained.fit()
    assert trained.step_done == 3  # 16 rollouts a step
    assert trained.run.read("metrics.jsonl")[-1]["total/rollouts"] == 48


@pytest.mark.parametrize("minibatch", ["null", "2"])
def test_metrics_count_what_was_sampled_by_the_policy_that_sampled(folder, minibatch):
    trained = trainer(folder, f"optimizer.problems_per_minibatch={minibatch}", correct=some_fail)
    groups = trained.sample(1)
    guided = [(group.problem, rollout) for group in groups for rollout in group.rollouts if rollout.guided]
    plain_rows = [Row(trained.engine.prompt_ids.prompts.plain_ids(p), r.token_ids) for p, r in guided]
    guided_rows = [Row(r.prompt_ids, r.token_ids) for _, r in guided]
    before = zip(
        *(
            trained.engine.policy_update.scorer.score_all(trained.engine.policy, rows)
            for rows in (plain_rows, guided_rows)
        ),
        strict=True,
    )
    metrics = group_metrics(groups) | trained.engine.update(groups, 1).metrics
    plain = [
        grade.correct for group in groups for r, grade in zip(group.rollouts, group.grades, strict=True) if not r.guided
    ]
    assert metrics["accuracy/plain"] == pytest.approx(sum(plain) / len(plain))
    assert metrics["guidance/triggered"] == sum(group.triggered for group in groups) > 0
    assert metrics["mismatch/max"] < 1e-5
    ratios = torch.cat([plain_T - guided_T for plain_T, guided_T in before]).double().exp()
    assert metrics["ratio/mean"] == pytest.approx(ratios.mean().item(), rel=1e-5)
    assert metrics["ratio/p90"] == pytest.approx(ratios.quantile(0.9).item(), rel=1e-5)
    assert metrics["guidance/reliance"] == pytest.approx(-ratios.log().mean().item(), rel=1e-3)
    assert metrics["rollouts"] == sum(len(group.rollouts) for group in groups)


def test_every_logged_key_is_explained_in_the_docs(folder):
    settings = ("steps=1", "loss.beta=0.1", "evaluation.every=1", "evaluation.samples=2")
    trained = trainer(folder, *settings, f"problems.evaluation={folder}/train.jsonl")
    trained.fit()
    rows = trained.run.read("metrics.jsonl") + trained.run.read("timings.jsonl")
    keys = {key for row in rows for key in row} - {"step"}
    text = (Path(__file__).parent.parent / "docs/metrics.md").read_text()
    documented = set(re.findall(r"`([^`]+)`", text))
    for key in keys:
        general = re.sub(r"^grades/.*", "grades/<verdict>", re.sub(r"/[ab]$", "", key))
        general = re.sub(r"^evaluation/pass@(?!1$)\d+$", "evaluation/pass@k", general)
        assert general in documented, f"docs/metrics.md does not explain {key}"
    assert {"accuracy/plain", "ratio/mean", "kl", "mismatch/max", "evaluation/pass@1"} <= keys


def test_metrics_also_go_to_tensorboard_by_a_recipe_line(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = trainer(folder, "trackers=[tensorboard]", "steps=2")
    trained.fit()
    events = next(trained.run.path.rglob("events.out.tfevents.*"))
    accumulator = EventAccumulator(str(events.parent))
    accumulator.Reload()
    rewards = [row["reward"] for row in trained.run.read("metrics.jsonl")]
    assert [event.value for event in accumulator.Scalars("reward")] == pytest.approx(rewards)


def test_a_tracker_that_is_not_installed_is_an_error(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install wandb"):
        trainer(folder, "trackers=[wandb]")


def test_a_model_without_a_pad_token_trains(folder):
    path = folder / "no_pad"
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    model = tiny_model("llama")
    model.config.pad_token_id = model.generation_config.pad_token_id = None
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    trained = trainer(folder, f"model.path={path}")
    run_steps(trained, 1)
    assert trained.step_done == 1


def test_running_out_of_memory_names_the_knob_and_keeps_the_last_step(folder, monkeypatch):
    def no_memory(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    trained = trainer(folder)
    run_steps(trained, 1)
    monkeypatch.setattr("guide_rl.logprobs.score_rows", no_memory)
    with pytest.raises(MemoryError, match=r"lower optimizer\.tokens_per_microbatch"):
        trained.fit()


def test_bfloat16_products_keep_float32_weights_and_agree_between_sampler_and_trainer(folder):
    trained = trainer(folder, "model.dtype=bfloat16", "steps=1")
    run_steps(trained, 1)
    metrics = trained.run.read("metrics.jsonl")[0]
    assert 1e-6 < metrics["mismatch/mean"] < 0.05
    assert all(weight.dtype == torch.float32 for weight in weights(trained).values())


def test_another_runs_lora_checkpoint_starts_from_its_merged_weights(folder):
    first = trainer(folder, "model.lora.rank=4", "steps=1")
    first.fit()
    second = trainer(folder, f"run={folder}/second", f"model.path={first.run.latest_checkpoint()}", "steps=1")
    ids = torch.arange(6, 20)[None]
    torch.testing.assert_close(
        second.engine.policy.model(ids).logits, first.engine.policy.model(ids).logits, atol=1e-4, rtol=1e-4
    )
    second.fit()
    assert (second.run.path / "model/model.safetensors").exists()


def test_a_dry_run_shows_both_prompts_and_refuses_what_training_would_refuse(folder):
    text = dry_run(recipe(folder))
    assert "0+0=<|assistant|>" in text
    assert "0+0= [double 0]<|assistant|>" in text
    assert "GFLOP/s measured here" in text
    with pytest.raises(ValueError, match="problems_per_step is 64"):
        dry_run(recipe(folder, "problems_per_step=64"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampling.max_tokens=500", r"a prompt of 17 tokens .* lower sampling\.max_tokens to 495 or less"),
        ("evaluation.max_tokens=510", r"a prompt of 6 tokens .* lower evaluation\.max_tokens to 506 or less"),
    ],
)
def test_rollouts_that_the_model_has_no_positions_for_are_refused_while_setting_up(folder, override, message):
    settings = ("evaluation.every=1", f"problems.evaluation={folder}/train.jsonl", override)
    for start in (trainer, lambda *arguments: dry_run(recipe(*arguments))):
        with pytest.raises(ValueError, match=message):
            start(folder, *settings)


def test_plain_training_reads_no_guidance(folder):
    trained = trainer(folder, "guidance.trigger=never", "prompts.max_tokens=8", "prompts.too_long=fail")
    assert all(problem.guidance is None for problem in trained.problems)


def test_a_step_whose_every_grade_is_a_failure_stops_the_run_before_the_update(folder):
    trained = trainer(folder)
    verdicts = iter(["error: KeyError", "timeout"] * 100)
    trained.grader = FailingGrader(lambda: next(verdicts))
    with pytest.raises(
        ValueError, match=r"failed on every rollout .*x error: KeyError.*x timeout.* Correct the grader"
    ):
        trained.fit()
    assert trained.step_done == 0
    verdicts = iter(["wrong"] + ["error: KeyError"] * 1000)
    run_steps(trained, 1)
    assert trained.step_done == 1


def test_a_step_whose_every_code_fails_is_no_failure_of_the_grader(folder):
    trained = trainer(folder, "guidance.trigger=never")
    trained.problems = [replace(problem, grader="unit_tests") for problem in trained.problems]
    verdicts = itertools.cycle(["error: SyntaxError", "timeout"])
    trained.grader = FailingGrader(lambda: next(verdicts))
    run_steps(trained, 1)
    assert trained.step_done == 1


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
def test_training_on_code_stops_before_it_samples_where_no_sandbox_starts(folder, monkeypatch):
    break_bubblewrap(folder, monkeypatch)
    tests = {"tests": "assert f(1) == 1"}
    problems = [
        replace(problem, grader="unit_tests", metadata=tests) for problem in load_problems(folder / "train.jsonl")
    ]
    save_problems(folder / "code.jsonl", problems)
    with pytest.raises(GraderSetupError, match="bubblewrap cannot start a sandbox here"):
        train(recipe(folder, f"problems.train={folder}/code.jsonl", "sampling.max_tokens=1"))  # Too short to be graded.


class FailingGrader:
    """Every rollout is wrong, with the next verdict."""

    def __init__(self, verdict):
        self.verdict = verdict

    def submit(self, problem, rollout):
        verdict = "truncated" if rollout.finish == "length" else self.verdict()

        class Done:
            def result(self) -> Grade:
                return Grade(0.0, False, verdict)

        return Done()


def test_a_step_that_teaches_nothing_is_told_once_with_its_verdicts(folder):
    trained = trainer(folder, "guidance.trigger=never", correct=lambda problem, rollout: False)
    told = []
    trained.progress.note = told.append
    run_steps(trained, 2)
    (said,) = [text for text in told if not text.startswith(("sampling step", "updating step"))]
    assert "step 1 taught nothing" in said
    assert "16 wrong" in said


def test_runs_of_different_precision_follow_each_other_in_one_process(folder):
    for n, dtype in enumerate(("float32", "bfloat16", "float32")):
        run_steps(trainer(folder, f"run={folder}/{n}", f"model.dtype={dtype}"), 1)


def test_an_entropy_bonus_and_a_kl_penalty_keep_the_rows_whose_advantage_is_0(folder):
    for extra, kept in (("loss.entropy_coef=0.01", True), ("loss.beta=0.1", True), ("loss.entropy_coef=0", False)):
        trained = trainer(folder, f"run={folder}/{extra}", extra, "loss.filter_uniform=false", correct=lambda *_: False)
        rows = [
            row
            for batch in build_minibatches(trained.sample(1), trained.recipe, trained.engine.prompt_ids)
            for row in batch.rows
        ]
        assert bool(rows) is kept


def test_a_gradient_that_is_not_finite_stops_the_step_though_the_loss_is(folder, monkeypatch):
    trained = trainer(folder)
    groups, before = trained.sample(1), weights(trained)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, norm: torch.tensor(float("nan")))
    with pytest.raises(update.NonFiniteLoss, match=r"gradient norm nan\. The optimizer was not stepped"):
        trained.engine.update(groups, 1)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(trained).items())


def test_ratios_and_mismatch_are_counted_once_a_rollout_whatever_the_epochs(folder):
    logs = []
    for epochs in (1, 2):
        trained = trainer(folder, f"run={folder}/{epochs}", f"optimizer.epochs={epochs}")
        logs.append(trained.engine.update(trained.sample(1), 1).metrics)
    for key in ("ratio/mean", "ratio/effective_sample_size", "guidance/reliance", "mismatch/max", "mismatch/mean"):
        assert logs[0][key] == logs[1][key]


def test_the_samplers_own_log_probs_are_not_compared_with_themselves(folder):
    trained = trainer(folder, "loss.old_logprobs=sampler")
    assert not any(key.startswith("mismatch") for key in trained.engine.update(trained.sample(1), 1).metrics)


def test_what_is_logged_of_several_optimizer_steps_is_their_mean(folder, monkeypatch):
    trained = trainer(folder, "optimizer.problems_per_minibatch=2", "optimizer.epochs=2", correct=coin)
    original, steps = trained.engine.policy_update._optimizer_step, []
    monkeypatch.setattr(
        trained.engine.policy_update, "_optimizer_step", lambda *a: steps.append(original(*a)) or steps[-1]
    )
    metrics = trained.engine.update(trained.sample(1), 1).metrics
    assert len(steps) == metrics["optimizer_steps"] > 1
    for key in ("loss", "grad_norm"):
        assert metrics[key] == pytest.approx(sum(step[key] for step in steps) / len(steps))


def test_of_equally_good_policies_the_first_is_the_best(folder):
    settings = ("steps=4", "evaluation.every=2", f"problems.evaluation={folder}/train.jsonl")
    trained = trainer(
        folder, *settings, correct=lambda problem, rollout: trained.step_done >= 2 or coin(problem, rollout)
    )
    trained.fit()
    assert (trained.best_step, trained.best_score, trained.score) == (2, 1.0, 1.0)


def test_a_run_leaves_what_a_person_needs_to_read_its_rollouts(folder):
    evaluation = (f"problems.evaluation={folder}/train.jsonl", "evaluation.every=2", "evaluation.samples=2")
    trained = trainer(folder, *evaluation, "steps=2", "guidance.trigger=always")
    trained.fit()
    run = trained.run
    problems, rollouts, held_out = (run.read(f"{name}.jsonl") for name in ("problems", "rollouts", "held_out"))
    keys = [(row["set"], row["id"]) for row in problems]
    assert len(set(keys)) == len(keys)
    assert {row["problem_id"] for row in rollouts} == {key for name, key in keys if name == "train"}
    assert {row["problem_id"] for row in held_out} == {key for name, key in keys if name == "held-out"}
    assert all(row["guidance"] and row["question"] and row["answer"] for row in problems if row["set"] == "train")
    assert {(row["step"], row["temperature"]) for row in held_out} == {(0, 0.0), (0, 1.0), (2, 0.0), (2, 1.0)}
    for row in rollouts:
        assert ("ratios" in row) == row["guided"]
        if row["guided"]:
            assert len(row["ratios"]) == len(row["pieces"]) == row["tokens"]
            assert "".join(row["pieces"]).startswith(row["text"])


def test_a_character_of_several_tokens_stands_at_the_last_of_them(folder):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    log = trainer(folder).log
    log.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    ids = log.tokenizer("aé 数😀")["input_ids"]
    assert log._pieces_of(ids) == ["a", "", "é", " ", "", "", "数", "", "", "", "😀"]
    assert log._pieces_of(ids[:-1])[-1] == "\N{REPLACEMENT CHARACTER}", "cut within a character"
    assert "".join(log._pieces_of(ids[2:5] * 3)).count(" ") == 3, "bytes that spell nothing hide no text"


def test_advantages_are_written_for_the_rollouts_that_the_loss_counts_and_for_no_others(folder):
    trained = trainer(folder, "loss.filter_uniform=true")
    groups = trained.sample(1)
    fail, solve = groups[0], replace(groups[1], grades=(Grade(1.0, True), *groups[1].grades[1:]))
    fail = replace(fail, grades=tuple(Grade(0.0, False) for _ in fail.grades))
    solve = replace(solve, grades=(Grade(1.0, True), *(Grade(0.0, False) for _ in solve.grades[1:])))
    updated = trained.engine.update([fail, solve], 1)
    trained.log.rollouts(1, [fail, solve], updated)
    advantages = {(row["problem_id"], row["index"]): row["advantage"] for row in trained.run.read("rollouts.jsonl")}
    assert all(advantages[fail.problem.id, i] is None for i in range(len(fail.rollouts)))
    assert advantages[solve.problem.id, 0] > 0 > advantages[solve.problem.id, 1]


def test_without_log_ratios_the_lines_stay_short(folder):
    trained = trainer(folder, "guidance.trigger=always", "log_ratios=false")
    run_steps(trained, 1)
    assert not any("ratios" in row or "pieces" in row for row in trained.run.read("rollouts.jsonl"))


def with_points(folder: Path) -> str:
    """The training problems with three points of guidance each."""
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    for row in rows:
        row["metadata"] = {"guidance_points": ["a", "b", "c"]}
    (folder / "points.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"problems.train={folder}/points.jsonl"


def test_levels_of_guidance_are_remembered_over_steps_and_in_checkpoints(folder):
    def correct(problem, rollout):
        return rollout.guided and rollout.index >= 3  # from the second level on

    settings = (with_points(folder), "guidance.ladder=true", "steps=4", "checkpoints.every=2", "problems_per_step=8")
    whole = trainer(folder, *settings, f"run={folder}/whole", correct=correct)
    whole.fit()
    assert set(whole.reached.values()) == {2}
    guided = [row for row in whole.run.read("rollouts.jsonl") if row["guided"]]
    assert {row["index"] for row in guided} == {3, 4, 5}
    stopped = trainer(folder, *settings, f"run={folder}/stopped", correct=correct)
    run_steps(stopped, 2)
    stopped.save()
    resumed = trainer(folder, *settings, f"run={folder}/stopped", correct=correct, resume=True)
    assert resumed.reached == stopped.reached
    resumed.fit()
    assert resumed.run.read("rollouts.jsonl") == whole.run.read("rollouts.jsonl")
    assert all(row["guidance/level"] == 2 for row in whole.run.read("metrics.jsonl") if "guidance/level" in row)


def test_a_ladder_without_points_is_refused(folder):
    with pytest.raises(ValueError, match=r"guidance\.ladder has nothing to climb"):
        trainer(folder, "guidance.ladder=true")


def test_uniform_groups_are_replaced_by_further_batches(folder):
    def correct(problem, rollout):
        return int(problem.id) % 2 == 0 and rollout.index == 0

    settings = ("guidance.trigger=never", "problems_per_step=2", "steps=3")
    trained = trainer(folder, *settings, "sampling.refill=5", correct=correct)
    groups, batches, _ = trained.sample_step(1)
    taught = trained._to_train(groups)
    assert len(taught) == 2
    assert not any(group.uniform for group in taught)
    assert len({group.problem.id for group in groups}) == len(groups) == 2 * batches
    run_steps(trained, 1)
    assert trained.batches == batches
    assert trained.run.read("metrics.jsonl")[0]["rollouts"] == 4 * len(groups)
    none_left = trainer(folder, *settings, "sampling.refill=1", f"run={folder}/other", correct=lambda *_: False)
    groups, batches, _ = none_left.sample_step(1)
    assert (len(groups), batches, len(none_left._to_train(groups))) == (4, 2, 0)
    run_steps(none_left, 2)
    assert [row["optimizer_steps"] for row in none_left.run.read("metrics.jsonl")] == [0, 0]


def test_a_group_whose_rewards_differ_by_rejected_rollouts_only_is_replaced(folder):
    settings = (
        "guidance.trigger=always",
        "guidance.keep_guided=successful",
        "problems_per_step=2",
        "sampling.refill=1",
    )
    trained = trainer(folder, *settings, correct=lambda problem, rollout: not rollout.guided or rollout.index == 0)
    groups, batches, _ = trained.sample_step(1)
    assert not any(group.uniform for group in groups)
    assert (batches, trained._to_train(groups)) == (2, [])


def test_rollouts_of_failed_levels_count_in_metrics_and_budgets(folder):
    settings = (with_points(folder), "guidance.ladder=true", "guidance.trigger=only_guided", "budget.rollouts=36")
    trained = trainer(folder, *settings, correct=lambda problem, rollout: False)
    trained.fit()
    (step,) = trained.run.read("metrics.jsonl")
    assert step["rollouts"] == step["total/rollouts"] == 4 * 3 * 3, "problems x levels x k_guided"
    assert step["tokens"] > sum(row["tokens"] for row in trained.run.read("rollouts.jsonl"))


@pytest.mark.parametrize(
    "settings",
    [("loss.advantages=psr", "loss.filter_uniform=false"), ("grading.truncated=masked", "sampling.max_tokens=1")],
)
def test_where_no_rollout_counts_nothing_moves(folder, settings):
    half = lambda problem, rollout: rollout.index % 2 == 0 and rollout.finish == "length"  # noqa: E731
    correct = half if "grading.truncated=masked" in settings else lambda *_: False
    trained = trainer(folder, *settings, "optimizer.weight_decay=0.1", correct=correct)
    before = weights(trained)
    groups = [replace(g, rollouts=tuple(replace(r, finish="length") for r in g.rollouts)) for g in trained.sample(1)]
    assert trained.engine.update(groups, 1).metrics["optimizer_steps"] == 0
    assert all(torch.equal(weight, before[name]) for name, weight in weights(trained).items())


def test_lora_trains_in_bfloat16(folder):
    trained = trainer(folder, "model.lora.rank=4", "model.dtype=bfloat16")
    frozen = [weight for name, weight in trained.engine.policy.model.named_parameters() if "base_layer" in name]
    assert trained.engine.policy_update.scorer.share_prompts
    assert {weight.dtype for weight in frozen} == {torch.bfloat16}
    run_steps(trained, 1)
    assert trained.run.read("metrics.jsonl")[0]["grad_norm"] > 0


def test_a_resumed_run_goes_on_after_the_last_refilled_batch(folder):
    settings = ("guidance.trigger=never", "problems_per_step=2", "steps=4", "checkpoints.every=2", "sampling.refill=2")
    whole = trainer(folder, *settings, f"run={folder}/whole")
    whole.fit()
    stopped = trainer(folder, *settings, f"run={folder}/stopped")
    run_steps(stopped, 2)
    stopped.save()
    resumed = trainer(folder, *settings, f"run={folder}/stopped", resume=True)
    resumed.fit()
    assert whole.batches > 4
    assert resumed.run.read("rollouts.jsonl") == whole.run.read("rollouts.jsonl")
