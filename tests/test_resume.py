"""Nothing is lost: interrupted, killed and refused runs, and the run folder that carries them."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny_models import tiny_model
from toy_run import recipe, trainer, write_inputs

from guide_rl.interrupts import Interrupts
from guide_rl.recipes import write_recipe
from guide_rl.run_folder import DiskFull, RunFolder
from guide_rl.trainers.engine import NonFiniteLoss
from guide_rl.trainers.trainer import Trainer, inputs, may_change, train
from guide_rl.trainers.update import PolicyUpdate

SETTINGS = (
    "steps=5",
    "checkpoints.every=2",
    "optimizer.problems_per_minibatch=2",
    "optimizer.epochs=2",
    "optimizer.schedule=cosine",
    "loss.beta=0.02",
    "loss.reference_every=3",
    "evaluation.every=2",
    "evaluation.samples=2",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def whole(folder) -> RunFolder:
    """The run that nothing stopped."""
    trained = trainer(folder, *settings(folder, "whole"))
    trained.fit()
    return trained.run


def settings(folder, name: str) -> tuple[str, ...]:
    return (*SETTINGS, f"run={folder}/{name}", f"problems.evaluation={folder}/train.jsonl")


def same_runs(a: RunFolder, b: RunFolder) -> None:
    """Metrics, rollouts and weights are equal to the last bit."""
    for name in ("metrics.jsonl", "problems.jsonl", "rollouts.jsonl", "held_out.jsonl"):
        assert a.read(name) == b.read(name)
    assert (a.path / "model/model.safetensors").read_bytes() == (b.path / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize("stop_at", [(2, "sample"), (3, "sample"), (3, "update"), (4, "evaluate")])
def test_an_interrupted_run_resumes_bit_for_bit(folder, whole, monkeypatch, stop_at):
    step, phase = stop_at
    name = f"stopped-{step}-{phase}"
    stopped = trainer(folder, *settings(folder, name))
    method = {"sample": "sample", "update": "__call__", "evaluate": "_evaluate_if_due"}[phase]
    owner = PolicyUpdate if phase == "update" else Trainer
    original = getattr(owner, method)

    def interrupted(*arguments):
        due = stopped.step_done == step if phase == "evaluate" else stopped.step_done == step - 1
        if due:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            stopped.fit()
    saved = stopped.run.latest_checkpoint()
    assert saved is not None
    assert saved.name == f"step-{step if phase in ('update', 'evaluate') else step - 1:06d}"
    resumed = trainer(folder, *settings(folder, name), resume=True)
    resumed.fit()
    same_runs(whole, resumed.run)


def test_a_second_interrupt_cuts_even_a_held_section():
    reached = []

    def section(interrupts: Interrupts) -> None:
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("after the first")
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("after the second")

    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        section(interrupts)
    assert reached == ["after the first"]


def test_an_error_between_two_steps_loses_no_step(folder, whole, monkeypatch):
    stopped = trainer(folder, *settings(folder, "error"))
    original = stopped.sample

    def fails(step, *more):
        if step == 4:
            raise MemoryError("lower sampling.batch_size")
        return original(step, *more)

    monkeypatch.setattr(stopped, "sample", fails)
    with pytest.raises(MemoryError, match="lower"):
        stopped.fit()
    assert stopped.run.latest_checkpoint().name == "step-000003"
    resumed = trainer(folder, *settings(folder, "error"), resume=True)
    resumed.fit()
    same_runs(whole, resumed.run)


def test_lines_written_after_the_checkpoint_are_cut_off_even_half_written_ones(folder, whole):
    killed = trainer(folder, *settings(folder, "killed"))
    with Interrupts() as interrupts:
        killed._settle(interrupts)
        for _ in range(3):
            killed.step(interrupts)
            killed._settle(interrupts)
    assert killed.run.latest_checkpoint().name == "step-000002"
    with (killed.run.path / "rollouts.jsonl").open("a") as file:
        file.write('{"step": 4, "text": "half a li')
    (killed.run.checkpoints / ".step-000004.partial").mkdir()
    resumed = trainer(folder, *settings(folder, "killed"), resume=True)
    assert resumed.step_done == 2
    resumed.fit()
    same_runs(whole, resumed.run)


def test_a_changed_recipe_is_refused_and_the_fields_are_named(folder):
    run = RunFolder.create(folder / "refused", write_recipe(recipe(folder)))
    with pytest.raises(ValueError, match=r"loss.beta: 0.0 -> 0.1; steps: 3 -> 4") as error:
        run.check_recipe(write_recipe(recipe(folder, "loss.beta=0.1", "steps=4")))
    assert "model.path=" in str(error.value)
    run.check_recipe(write_recipe(recipe(folder)))


def test_a_run_that_is_resumed_with_more_steps_is_the_longer_run(folder):
    steps_3, steps_5 = ((f"steps={n}", "checkpoints.every=2", "trackers=[]") for n in (3, 5))
    long = train(recipe(folder, f"run={folder}/long", *steps_5))
    first = train(recipe(folder, f"run={folder}/short", *steps_3))
    resumed = train(recipe(folder, f"run={folder}/short", *steps_5), resume=str(first.path))
    same_runs(long, resumed)
    assert "steps: 5\n" in (first.path / "recipe.yaml").read_text()


def test_steps_may_not_change_where_the_learning_rate_depends_on_them(folder):
    assert "steps" in may_change(recipe(folder))
    assert "steps" not in may_change(recipe(folder, "optimizer.schedule=cosine"))
    assert "loss.beta" not in may_change(recipe(folder))


def test_a_changed_problem_file_is_refused_on_resume(folder, tmp_path):
    problems = tmp_path / "train.jsonl"
    text = (folder / "train.jsonl").read_text()
    problems.write_text(text)
    settings = recipe(folder, f"run={tmp_path}/run", f"problems.train={problems}", "steps=1")
    run = train(settings)
    problems.write_text(text.replace("double", "triple"))
    with pytest.raises(ValueError, match=r"problems.train: .*train.jsonl has changed since"):
        train(settings, resume=str(run.path))
    problems.unlink()
    with pytest.raises(FileNotFoundError, match=r"problems.train: .* is not there; start in the folder where"):
        train(settings, resume=str(run.path))
    problems.write_text(text)
    train(settings, resume=str(run.path))


def test_another_base_model_under_an_adapter_is_refused_on_resume(folder, tmp_path):
    shutil.copytree(folder / "model", tmp_path / "model")
    settings = recipe(folder, f"run={tmp_path}/run", f"model.path={tmp_path}/model", "model.lora.rank=2", "steps=1")
    run = train(settings)
    train(settings, resume=str(run.path))
    tiny_model("qwen2", seed=1).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"model.path: .* has changed since"):
        train(settings, resume=str(run.path))


def test_an_edited_recipe_of_a_run_is_refused(folder, tmp_path):
    settings = recipe(folder, f"run={tmp_path}/run", "steps=1")
    run = train(settings)
    path = run.path / "recipe.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.01", "learning_rate: 0.5"))
    with pytest.raises(ValueError, match=r"recipe.yaml was edited after the run was started; restore it.* field=value"):
        train(recipe(folder, f"run={tmp_path}/run", "steps=1", "optimizer.learning_rate=0.5"), resume=str(run.path))


def test_a_run_that_needs_less_memory_can_go_on(folder, tmp_path):
    settings = [f"run={tmp_path}/run", "checkpoints.every=1"]
    run = train(recipe(folder, *settings, "steps=1"))
    less = (
        "optimizer.tokens_per_microbatch=64",
        "sampling.batch_size=3",
        "model.gradient_checkpointing=true",
        "steps=2",
    )
    resumed = train(recipe(folder, *settings, *less), resume=str(run.path))
    assert [row["step"] for row in resumed.read("metrics.jsonl")] == [1, 2]


def test_a_folder_with_a_run_is_not_overwritten(folder):
    RunFolder.create(folder / "run", "a: 1\n")
    with pytest.raises(FileExistsError, match="--resume"):
        RunFolder.create(folder / "run", "a: 1\n")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        RunFolder.open(folder / "nothing")


def test_two_processes_cannot_work_on_one_run(tmp_path):
    run = RunFolder.create(tmp_path / "run", "a: 1\n")
    with run.lock(), pytest.raises(BlockingIOError, match="another process is working on this run"):
        RunFolder.open(run.path).lock()
    RunFolder.open(run.path).lock().close()


def test_a_full_disk_while_saving_keeps_the_older_checkpoint_whole(tmp_path):
    run = RunFolder.create(tmp_path / "run", "a: 1\n")

    def write(folder):
        torch.save(torch.arange(3), folder / "trainer.pt")

    run.save_checkpoint(1, write)

    def no_space(folder):
        write(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    def no_space_in_a_library(folder):
        write(folder)
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    for fail in (no_space, no_space_in_a_library):
        with pytest.raises(DiskFull, match="Free some space and continue"):
            run.save_checkpoint(2, fail)
        assert [path.name for path in run.checkpoints.iterdir()] == ["step-000001"]
    assert torch.load(run.latest_checkpoint() / "trainer.pt").tolist() == [0, 1, 2]


def test_kill_9_in_the_middle_of_saving_leaves_the_last_whole_checkpoint(tmp_path):
    script = """
import os, signal, sys
from guide_rl.run_folder import RunFolder
run = RunFolder.create(sys.argv[1], "a: 1")
run.append("metrics.jsonl", [{"step": 1}])
run.save_checkpoint(1, lambda folder: (folder / "a").write_text("one"))
run.append("metrics.jsonl", [{"step": 2}])
def die(folder):
    (folder / "a").write_text("tw")
    os.kill(os.getpid(), signal.SIGKILL)
run.save_checkpoint(2, die)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")], check=False)
    assert done.returncode == -signal.SIGKILL
    run = RunFolder.open(tmp_path / "run")
    checkpoint = run.rewind()
    assert (checkpoint / "a").read_text() == "one"
    assert run.read("metrics.jsonl") == [{"step": 1}]
    assert not list(run.checkpoints.glob(".*"))


@pytest.mark.e2e
def test_kill_9_at_any_moment_of_a_real_run_resumes_to_the_same_bits(folder):
    """Through the command line, several kills, each at another moment."""
    base = [sys.executable, "-m", "guide_rl.cli", "train"]
    path = folder / "recipe.yaml"
    recipe(folder)
    overrides = ["steps=12", "checkpoints.every=2", "optimizer.epochs=2", "sampling.max_tokens=24"]
    subprocess.run([*base, str(path), *overrides, f"run={folder}/whole"], check=True, capture_output=True)
    for kills in range(3):
        start = (
            [*base, str(path), *overrides, f"run={folder}/killed"]
            if kills == 0
            else [*base, "--resume", f"{folder}/killed"]
        )
        process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        timings = folder / "killed/timings.jsonl"
        goal = 3 * kills + 2
        while process.poll() is None and (not timings.exists() or timings.read_text().count("\n") < goal):
            time.sleep(0.005)
        time.sleep(0.03 * kills)
        process.kill()
        process.communicate()
    last = subprocess.run([*base, "--resume", f"{folder}/killed"], capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    same_runs(RunFolder.open(folder / "whole"), RunFolder.open(folder / "killed"))
    steps = [json.loads(line)["step"] for line in (folder / "killed/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))


def test_a_new_run_that_fails_before_its_first_step_leaves_its_folder_free(folder, tmp_path, monkeypatch):
    settings = recipe(folder, f"run={tmp_path}/run", "steps=1")
    monkeypatch.setattr(Trainer, "sample", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(settings)
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    run = train(settings)
    with pytest.raises(FileExistsError):
        train(settings)
    assert (run.path / "model/model.safetensors").exists(), "a run that exists is never removed"


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_kill_9_while_a_folder_is_replaced_leaves_the_old_one_or_the_new_one(tmp_path, renames):
    script = """
import os, pathlib, signal, sys
from guide_rl.run_folder import RunFolder
run = RunFolder.create(sys.argv[1], "a: 1")
run.save_checkpoint(1, lambda folder: (folder / "a").write_text("old"))
left, rename = int(sys.argv[2]), pathlib.Path.rename
def dying_rename(self, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(self, target)
pathlib.Path.rename = dying_rename
run.save_checkpoint(1, lambda folder: (folder / "a").write_text("new"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "run"), str(renames)], check=False)
    assert done.returncode == -signal.SIGKILL
    run = RunFolder.open(tmp_path / "run")
    assert (run.rewind() / "a").read_text() == ("new" if renames == 2 else "old")
    assert not list(run.checkpoints.glob(".*"))


def test_without_a_checkpoint_a_resumed_run_starts_with_empty_files(tmp_path):
    run = RunFolder.create(tmp_path / "run", "a: 1\n")
    run.append("metrics.jsonl", [{"step": 1}])
    assert run.rewind() is None
    assert run.read("metrics.jsonl") == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "versions.json", "checkpoints/step-000014/trainer.pt"])
def test_a_folder_with_another_runs_files_is_refused_and_left_as_it_is(tmp_path, name):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("theirs")
    with pytest.raises(FileExistsError, match="not this run's; give another folder"):
        RunFolder.create(tmp_path / "run", "a: 1\n")
    assert path.read_text() == "theirs"
    assert not (tmp_path / "run/recipe.yaml").exists()


def test_what_a_checkpoint_knows_comes_back(folder, whole):
    resumed = trainer(folder, *settings(folder, "whole"), resume=True)
    last = [row for row in whole.read("metrics.jsonl") if "evaluation/pass@1" in row]
    assert resumed.evaluated == resumed.step_done == last[-1]["step"]
    assert resumed.score == last[-1]["evaluation/pass@1"]
    assert resumed.best_score == max(row["evaluation/pass@1"] for row in last)
    lines = len(whole.read("metrics.jsonl"))
    resumed.fit()
    assert len(whole.read("metrics.jsonl")) == lines, "a finished run evaluates nothing again"


@pytest.mark.parametrize("where", ["weights", "memory"])
def test_a_step_that_breaks_in_its_update_is_not_saved(folder, monkeypatch, where):
    stopped = trainer(folder, *settings(folder, f"broken-{where}"), "checkpoints.keep_last=1")
    original = stopped.engine.policy_update.optimizer.step

    def breaks():
        original()
        if stopped.step_done == 2:
            if where == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory")
            next(iter(stopped.engine.policy_update.parameters)).data.fill_(float("inf"))

    monkeypatch.setattr(stopped.engine.policy_update.optimizer, "step", breaks)
    expected = {
        "weights": (NonFiniteLoss, "weights are no longer finite"),
        "memory": (MemoryError, "lower optimizer.tokens"),
    }
    with pytest.raises(expected[where][0], match=expected[where][1]):
        stopped.fit()
    assert [path.name for path in stopped.run.checkpoints.iterdir()] == ["step-000002"]
    resumed = trainer(folder, *settings(folder, f"broken-{where}"), "checkpoints.keep_last=1", resume=True)
    assert resumed.step_done == 2


def test_only_what_the_recipe_names_is_compared_on_resume(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = recipe(folder, "run=run", "steps=1")
    assert set(inputs(settings)) == {"problems.train"}
    train(settings)
    (tmp_path / "log.txt").write_text("a file beside the run")
    train(settings, resume="run")
