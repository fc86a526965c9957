"""Whole runs of engine verl on two CPU ranks: real Ray, FSDP2 over gloo, rollout servers, `guide train`."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from verl_cpu.marked import processes
from verl_cpu.settings import environment, settings

pytestmark = pytest.mark.cluster
RANKS, SECONDS = 2, 300
TRAIN = ["-m", "guide_rl.cli", "train"]


def write_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe for two ranks, its model and its problems, half of which are likely to be failed by all plain rollouts."""
    from tiny_models import tiny_model, tiny_tokenizer

    tiny_model("qwen2").save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    problems = [
        {
            "id": f"{i}",
            "question": f"{i}+{i}=",
            "answer": "?",
            "guidance": f"double {i}",
            "grader": "verl_cpu.coin:grade",
        }
        for i in range(8)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    verl = {f"+{key}": value for key, value in settings(RANKS).items()}
    recipe = {
        "engine": "verl",
        "verl": verl | {"actor_rollout_ref.rollout.full_determinism": True},
        "model": {"path": str(folder / "model"), "dtype": "float32"},
        "problems": {"train": str(folder / "train.jsonl")},
        "run": str(folder / "run"),
        "steps": 3,
        "problems_per_step": 4,
        "prompts": {"guided_template": "{question} [{guidance}]", "max_tokens": 64},
        "sampling": {"k": 4, "max_tokens": 64},
        "guidance": {"k_guided": 3},
        "optimizer": {"learning_rate": 0.01},
        "checkpoints": {"every": 1, "keep_last": 3},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | changes))
    return folder / "recipe.yaml"


def start(*arguments: str, cwd: Path) -> tuple[subprocess.Popen[str], str]:
    """A process of the run, and what marks all that come from it."""
    mark = f"VERL_TEST_RUN={uuid.uuid4().hex}"
    variables = {**os.environ, **environment(), "VERL_TEST_RUN": mark.partition("=")[2]}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([sys.executable, *arguments], env=variables, cwd=cwd, **pipes), mark


def finish(process: subprocess.Popen[str], mark: str) -> tuple[int, str]:
    """Exit status and what it said; nothing of it is left."""
    out, err = process.communicate(timeout=SECONDS)
    deadline = time.monotonic() + 20
    while (left := processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, left
    return process.returncode, out + err


def lines(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The rows of a run's file."""
    path = folder / "run" / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of Guide-GRPO, uninterrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write_recipe(folder)
    status, said = finish(*start("-m", "verl_cpu.training", str(folder), cwd=folder))
    assert status == 0, said
    return folder


def texts(folder: Path) -> list[tuple[Any, ...]]:
    """What was sampled, in an order of its own."""
    names = ("step", "problem_id", "guided", "index", "text")
    return sorted(tuple(line[name] for name in names) for line in lines(folder, "rollouts.jsonl"))


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def test_loss_and_gradient_are_the_local_engines_on_the_same_groups(whole):
    metrics, local = report(whole)["metrics"], report(whole)["local"]
    assert metrics["optimizer_steps"] == local["optimizer_steps"] == 1
    assert metrics["loss"] == pytest.approx(local["loss"], abs=1e-6)
    assert metrics["grad_norm"] == pytest.approx(local["grad_norm"], rel=1e-5)
    assert metrics["guidance/reliance"] == pytest.approx(local["guidance/reliance"], abs=1e-6)
    assert abs(local["loss"]) > 1e-3


def test_sampler_and_trainer_agree_on_plain_and_guided_rows(whole):
    rows = report(whole)["rows"]
    assert {row["guided"] for row in rows} == {True, False}
    assert most_apart(rows, "sampler", "sampled_prompt") < 1e-6


def most_apart(rows: list[dict[str, Any]], one: str, other: str) -> float:
    """The largest difference of two probabilities of a token."""
    return max(abs(math.exp(a) - math.exp(b)) for row in rows for a, b in zip(row[one], row[other], strict=True))


def test_before_the_first_update_ratios_are_1_on_plain_rows_and_not_on_guided_ones(whole):
    plain = [row for row in report(whole)["rows"] if not row["guided"]]
    assert plain
    assert most_apart(plain, "sampled_prompt", "plain_prompt") < 1e-6
    ratios = [ratio for values in report(whole)["ratios"].values() for ratio in values]
    assert max(abs(ratio - 1) for ratio in ratios) > 0.1


def test_without_the_guidance_in_the_prompt_old_log_probs_would_not_be_the_samplers(whole):
    """The negative control: what the two tests above tell apart."""
    guided = [row for row in report(whole)["rows"] if row["guided"]]
    assert most_apart(guided, "sampler", "plain_prompt") > 1e-3


def test_the_run_folder_is_that_of_any_run(whole):
    rows = lines(whole)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert sum(row["guidance/triggered"] for row in rows) > 0
    assert all(row["mismatch/max"] < 1e-4 for row in rows)
    rollouts = lines(whole, "rollouts.jsonl")
    assert len(rollouts) == sum(row["rollouts"] for row in rows)
    assert any(line.get("ratios") for line in rollouts if line["guided"])
    assert {"problem_id", "advantage", "text", "verdict"} <= rollouts[0].keys()


def test_report_and_export_take_the_run(whole, tmp_path):
    guide = [sys.executable, "-m", "guide_rl.cli"]
    subprocess.run(
        [*guide, "report", str(whole / "run"), "--out", str(tmp_path / "report")], check=True, capture_output=True
    )
    assert (tmp_path / "report/index.html").exists()
    checkpoint = whole / "run/checkpoints/step-000003"
    subprocess.run([*guide, "export", str(checkpoint), str(tmp_path / "model")], check=True, capture_output=True)
    from transformers import AutoModelForCausalLM

    exported, trained, first = (
        AutoModelForCausalLM.from_pretrained(path).state_dict()["model.embed_tokens.weight"]
        for path in (tmp_path / "model", whole / "run/model", whole / "model")
    )
    assert exported.equal(trained)
    assert not exported.equal(first)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same run, of which a worker was killed after the second step; and what it said."""
    folder = tmp_path_factory.mktemp("killed")
    recipe = write_recipe(folder)
    process, mark = start(*TRAIN, str(recipe), cwd=folder)
    deadline = time.monotonic() + SECONDS
    while not (folder / "run/checkpoints/step-000002").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = [pid for pid, command in processes(mark).items() if "WorkerDict" in command]
    assert len(workers) == RANKS, processes(mark)
    os.kill(workers[1], signal.SIGKILL)
    status, said = finish(process, mark)
    assert status == 1, said
    return folder, said


def test_a_worker_that_dies_ends_the_run_with_what_to_do(killed):
    folder, said = killed
    assert "Traceback" not in said.rpartition("guide train: ")[2]
    assert f"guide train --resume {folder}/run" in said
    assert "checkpoints/step-000002" in said


def test_the_killed_run_goes_on_to_the_same_numbers(killed, whole):
    folder, _ = killed
    status, said = finish(*start(*TRAIN, "--resume", str(folder / "run"), cwd=folder))
    assert status == 0, said
    for one, other in zip(lines(folder), lines(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    texts = [
        [(r["problem_id"], r["guided"], r["index"], r["text"]) for r in lines(f, "rollouts.jsonl")]
        for f in (folder, whole)
    ]
    assert sorted(texts[0]) == sorted(texts[1])


def test_a_cluster_that_is_too_small_is_an_error(tmp_path):
    few = "verl.+ray_kwargs.ray_init.num_gpus=1"
    status, said = finish(*start(*TRAIN, str(write_recipe(tmp_path)), few, cwd=tmp_path))
    assert status == 1
    assert "guide train: error: the Ray cluster has 1 GPUs, and verl asks for 2" in said


def test_guide_ppo_steps_as_often_as_configured_and_is_evaluated(tmp_path):
    loss = {"advantages": "gae", "filter_uniform": False, "beta": 0.01}
    optimizer = {"learning_rate": 0.001, "problems_per_minibatch": 2, "epochs": 2}
    recipe = write_recipe(
        tmp_path,
        steps=2,
        loss=loss,
        optimizer=optimizer,
        critic={"warmup_steps": 1},
        problems=dict.fromkeys(("train", "evaluation"), str(tmp_path / "train.jsonl")),
        evaluation={"every": 2, "samples": 2},
    )
    status, said = finish(*start(*TRAIN, str(recipe), cwd=tmp_path))
    assert status == 0, said
    before, warm, second, after = lines(tmp_path)
    assert warm["guidance/triggered"] + second["guidance/triggered"] > 0
    assert (warm["optimizer_steps"], second["optimizer_steps"]) == (0, 4)
    assert warm["critic/grad_norm"] > 0
    assert "loss" not in warm
    assert math.isfinite(second["critic/explained_variance"])
    assert second["kl"] > 0
    assert before.keys() == after.keys() >= {"evaluation/pass@1", "evaluation/sampled_pass@1", "evaluation/pass@2"}
    assert len(lines(tmp_path, "held_out.jsonl")) == 2 * 8 * 3
