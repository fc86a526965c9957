"""The SFT stage: the right tokens carry the loss in a seeded order, nothing is lost, and the model that comes out loads."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

pytest.importorskip("trl")

from guide_rl.config import CheckpointsConfig, LoraConfig, ModelConfig, PromptsConfig, SFTRecipe
from guide_rl.demo import world
from guide_rl.problems import save_problems
from guide_rl.prompts import Prompts
from guide_rl.recipes import write_recipe
from guide_rl.run_folder import RunFolder
from guide_rl.trainers.export import export_checkpoint
from guide_rl.trainers.sft import SFTTrainer, batch_order, run_sft, sft_rows
from guide_rl.types import Problem

PROMPTS = PromptsConfig(guided_template=world.GUIDED_TEMPLATE)
PROBLEM = Problem(id="a", question="2+3=", answer="5", guidance="count", solution="<answer>5</answer>")


def recipe_for(tmp_path, **changes):
    values = {
        "model": ModelConfig(path=str(tmp_path / "untrained"), device="cpu"),
        "problems": str(tmp_path / "warmup.jsonl"),
        "run": str(tmp_path / "run"),
        "prompts": PROMPTS,
        "context": "guided",
        "epochs": 1,
        "batch_size": 12,
        "microbatch_size": 4,
        "learning_rate": 3e-3,
        **changes,
    }
    return SFTRecipe(**values)


def prompts():
    return Prompts(world.tokenizer(), PROMPTS)


def test_a_guided_row_is_the_guided_prompt_then_the_solution_and_eos(tmp_path):
    (row,) = sft_rows([PROBLEM], prompts(), recipe_for(tmp_path))
    words = world.tokenizer()
    assert words.decode(row.prompt_ids) == "<|user|>2+3=[HINT_START]count[HINT_END]<|assistant|>"
    assert words.decode(row.solution_ids) == "<answer>5</answer><|end|>"


def test_a_plain_row_ignores_the_guidance(tmp_path):
    (row,) = sft_rows([PROBLEM], prompts(), recipe_for(tmp_path, context="plain"))
    assert row.prompt_ids == prompts().plain_ids(PROBLEM)


def test_rows_over_the_limit_are_left_out_and_none_left_is_an_error(tmp_path):
    long = Problem(id="b", question="2+3=", answer="5", solution="1" * 50)
    recipe = recipe_for(tmp_path, max_tokens=30)
    assert len(sft_rows([PROBLEM, long], prompts(), recipe)) == 1
    with pytest.raises(ValueError, match="all 1 rows are over max_tokens"):
        sft_rows([long], prompts(), recipe)


def test_a_long_prompt_stops_the_run_where_the_recipe_says_fail(tmp_path):
    strict = Prompts(world.tokenizer(), PromptsConfig(max_tokens=5, too_long="fail"))
    with pytest.raises(ValueError, match=r"problem 'a'.*over prompts.max_tokens \(5\)"):
        sft_rows([PROBLEM], strict, recipe_for(tmp_path))


def test_a_problem_without_solution_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match="problem 'c' has no solution"):
        sft_rows([Problem(id="c", question="1+1=", answer="2")], prompts(), recipe_for(tmp_path))


def test_the_order_takes_every_row_once_an_epoch_and_sorts_each_batch_by_length():
    lengths = [7, 1, 5, 3, 9, 2, 8, 4, 6, 10]
    order = batch_order(lengths, batch_size=5, epochs=2.5, seed=0)
    assert len(order) == 25
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order[:10] != order[10:20]
    for start in range(0, 25, 5):
        batch = [lengths[row] for row in order[start : start + 5]]
        assert batch == sorted(batch)
    assert order == batch_order(lengths, batch_size=5, epochs=2.5, seed=0)
    assert order != batch_order(lengths, batch_size=5, epochs=2.5, seed=1)


@pytest.mark.e2e
def test_a_run_learns_loads_back_and_writes_only_its_folder(tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    world.write_untrained(tmp_path / "untrained")
    save_problems(tmp_path / "warmup.jsonl", world.warmup_problems(240, 0.5, seed=0))
    before = set(tmp_path.rglob("*"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model_path = run_sft(recipe_for(tmp_path))
    assert model_path == tmp_path / "run" / "model"
    AutoModelForCausalLM.from_pretrained(model_path)
    assert AutoTokenizer.from_pretrained(model_path).get_vocab() == world.tokenizer().get_vocab()
    new = set(tmp_path.rglob("*")) - before - {tmp_path / "elsewhere"}
    assert all(path.is_relative_to(tmp_path / "run") for path in new)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 20
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(FileExistsError, match="holds a run already"):
        run_sft(recipe_for(tmp_path))


@pytest.mark.e2e
def test_the_solution_is_learned_and_the_prompt_is_not(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    world.write_untrained(tmp_path / "untrained")
    problems = [Problem(id=str(n), question=f"{n}+{n}=", answer="0", solution="7") for n in range(10, 82)]
    save_problems(tmp_path / "warmup.jsonl", problems)
    run_sft(recipe_for(tmp_path, epochs=5, learning_rate=1e-2))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    with torch.no_grad():
        likely_TV = model(torch.tensor([prompts().plain_ids(problems[0])])).logits.softmax(-1)[0]
    seven, equals = world.tokenizer().convert_tokens_to_ids(["7", "="])
    assert likely_TV[-1, seven] > 0.9
    assert likely_TV[5, equals] < 0.5


# ---------------------------------------------------------------------- resuming


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    world.write_untrained(folder / "untrained")
    save_problems(folder / "warmup.jsonl", world.warmup_problems(42, 0.5, seed=0))
    return folder


def resumable(folder, name: str, *, lora: bool = False) -> SFTRecipe:
    """Seven steps, the last of half a batch; a checkpoint after every third."""
    model = ModelConfig(path=str(folder / "untrained"), device="cpu", lora=LoraConfig(rank=4) if lora else None)
    return recipe_for(
        folder,
        model=model,
        run=str(folder / name),
        epochs=2,
        schedule="cosine",
        warmup_steps=2,
        checkpoints=CheckpointsConfig(every=3, keep_last=1),
    )


@pytest.fixture(scope="module")
def whole(folder):
    """The run that nothing stopped."""
    return whole_run(folder, "whole")


def whole_run(folder, name: str, *, lora: bool = False) -> RunFolder:
    recipe = resumable(folder, name, lora=lora)
    run_sft(recipe)
    return RunFolder.open(recipe.run)


def same_runs(a: RunFolder, b: RunFolder) -> None:
    """Metrics and weights are equal to the last bit."""
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (a.path / name).read_bytes() == (b.path / name).read_bytes()


def at_step(monkeypatch, step: int, act) -> None:
    """Do something in the first forward pass of a step."""
    original, seen = SFTTrainer.training_step, []

    def training_step(self, *arguments, **options):
        if self.state.global_step == step - 1 and not seen:
            seen.append(step)
            act()
        return original(self, *arguments, **options)

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)


def stop_at(monkeypatch, step: int, recipe: SFTRecipe, number: signal.Signals) -> RunFolder:
    """Run until a signal in the given step."""
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(KeyboardInterrupt):
            run_sft(recipe)
    return RunFolder.open(recipe.run)


@pytest.mark.e2e
@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (5, signal.SIGINT)])
def test_an_interrupted_run_saves_the_step_under_way_and_resumes_bit_for_bit(folder, whole, monkeypatch, step, number):
    recipe = resumable(folder, f"stopped-{step}")
    run = stop_at(monkeypatch, step, recipe, number)
    assert [path.name for path in run.checkpoints.iterdir()] == [f"step-{step:06d}"]
    assert not (run.path / "model").exists()
    run_sft(recipe, resume=recipe.run)
    same_runs(whole, run)


@pytest.mark.e2e
def test_a_run_with_lora_resumes_bit_for_bit(folder, monkeypatch):
    recipe = resumable(folder, "stopped-lora", lora=True)
    run = stop_at(monkeypatch, 4, recipe, signal.SIGINT)
    run_sft(recipe, resume=recipe.run)
    same_runs(whole_run(folder, "whole-lora", lora=True), run)


@pytest.mark.e2e
def test_what_an_error_left_after_the_checkpoint_is_cut_off(folder, whole, monkeypatch):
    recipe = resumable(folder, "failed")

    def fail():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        at_step(patch, 6, fail)
        with pytest.raises(MemoryError, match="lower microbatch_size"):
            run_sft(recipe)
    run = RunFolder.open(recipe.run)
    assert run.latest_checkpoint().name == "step-000003"
    assert len(run.read("metrics.jsonl")) == 5
    (run.checkpoints / ".step-000006.partial").mkdir()
    run_sft(recipe, resume=recipe.run)
    same_runs(whole, run)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000007"]


@pytest.mark.e2e
def test_a_run_stopped_while_exporting_resumes_to_its_model(folder, whole, monkeypatch):
    recipe = resumable(folder, "exporting")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("guide_rl.trainers.sft.export", stop)
        with pytest.raises(KeyboardInterrupt):
            run_sft(recipe)
    run_sft(recipe, resume=recipe.run)
    same_runs(whole, RunFolder.open(recipe.run))


def test_a_non_finite_step_is_never_saved(folder):
    recipe = replace(resumable(folder, "diverged"), learning_rate=1e38, schedule="constant", warmup_steps=0)
    recipe = replace(recipe, checkpoints=CheckpointsConfig(every=1))
    with pytest.raises(FloatingPointError, match=r"step 2: loss .*Lower learning_rate"):
        run_sft(recipe)
    run = RunFolder.open(recipe.run)
    assert [row["step"] for row in run.read("metrics.jsonl")] == [1]
    assert run.latest_checkpoint().name == "step-000001"


def test_a_resumed_recipe_may_change_what_is_kept_and_nothing_else(folder, whole):
    recipe = resumable(folder, "whole")
    with pytest.raises(ValueError, match=r"another recipe \(learning_rate: 0.003 -> 0.1\)"):
        run_sft(replace(recipe, learning_rate=0.1), resume=recipe.run)
    kept = replace(recipe, checkpoints=CheckpointsConfig(every=2))
    run_sft(kept, resume=recipe.run)
    assert (whole.path / "recipe.yaml").read_text().startswith(write_recipe(kept))
    whole.write_recipe(write_recipe(recipe))


def test_a_run_that_could_not_start_leaves_its_folder_free(folder):
    recipe = replace(resumable(folder, "refused"), max_tokens=1)
    with pytest.raises(ValueError, match="rows are over max_tokens"):
        run_sft(recipe)
    assert not (folder / "refused").exists()


def test_a_run_says_what_it_trains_on_and_where_the_model_is(folder, capsys):
    recipe = replace(resumable(folder, "spoken"), epochs=0.1, max_tokens=30)
    run_sft(recipe)
    lines = capsys.readouterr().err.splitlines()
    run_sft(recipe, resume=recipe.run)
    assert capsys.readouterr().err.splitlines() == [lines[0], "exporting the model", lines[-1]]
    assert lines[0].startswith(f"{folder}/warmup.jsonl: 22 rows of ")
    assert lines[0].endswith("; 20 rows left out (over max_tokens or prompts.max_tokens)")
    assert lines[-1] == f"{folder}/spoken: 1 steps done; the model is in {folder}/spoken/model"


def test_a_run_exports_its_newest_checkpoint_or_without_one_its_model(whole, tmp_path):
    export_checkpoint(whole.path, tmp_path / "newest")
    only_model = tmp_path / "run"
    only_model.mkdir()
    (only_model / "recipe.yaml").write_text("seed: 0\n")
    (only_model / "model").symlink_to(whole.path / "model")
    export_checkpoint(only_model, tmp_path / "model")
    for name in ("newest", "model"):
        exported = (tmp_path / name / "model.safetensors").read_bytes()
        assert exported == (whole.path / "model/model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="is no run of `guide train`"):
        export_checkpoint(whole.path, tmp_path / "best", best=True)


@pytest.mark.e2e
def test_kill_9_at_any_moment_of_a_real_run_resumes_to_the_same_bits(folder, tmp_path):
    """Through the command line, several kills, each at another moment."""
    guide = [sys.executable, "-m", "guide_rl.cli", "sft"]
    recipe = replace(resumable(folder, "killed"), epochs=12, checkpoints=CheckpointsConfig(every=2))
    (tmp_path / "killed.yaml").write_text(write_recipe(recipe))
    run_sft(replace(recipe, run=str(folder / "unkilled")))
    metrics = folder / "killed/metrics.jsonl"
    for kills in range(2):
        start = [*guide, "--resume", f"{folder}/killed"] if kills else [*guide, f"{tmp_path}/killed.yaml"]
        process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        goal = 16 * kills + 5
        while process.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < goal):
            time.sleep(0.002)
        time.sleep(0.02 * kills)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    last = subprocess.run([*guide, "--resume", f"{folder}/killed"], capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    same_runs(RunFolder.open(folder / "unkilled"), RunFolder.open(folder / "killed"))
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == list(range(1, 43))
