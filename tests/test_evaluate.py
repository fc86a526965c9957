"""`guide evaluate`: what it measures, what it writes, what it refuses, and that nothing is measured twice or lost."""

import errno
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from faulty_server import FaultyServer
from rich.console import Console
from sandboxed import break_bubblewrap, children, needs_sandbox
from tiny_models import tiny_model, tiny_tokenizer
from toy_run import trainer
from toy_run import write_inputs as write_training_inputs
from transformers import MambaConfig, MambaForCausalLM

from guide_rl.cli import main
from guide_rl.config import EvaluateRecipe
from guide_rl.evaluation import models, running
from guide_rl.evaluation.models import EvaluatedModel, find_models
from guide_rl.evaluation.outcomes import OUTCOMES, outcome
from guide_rl.evaluation.running import evaluate_models
from guide_rl.evaluation.table import print_table
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.recipes import read_recipe
from guide_rl.run_folder import RunFolder
from guide_rl.samplers.transformers import TransformersSampler
from guide_rl.types import Grade, Problem, Rollout

ROOT = Path(__file__).parent.parent
RECIPE = """
models: {{base: {folder}/model}}
benchmarks: {{sums: {folder}/sums.jsonl}}
run: {folder}/run
samples: 4
max_tokens: 12
stop: [u, T]
model: {{device: cpu}}
prompts: {{guided_template: "{{question}} [{{guidance}}]"}}
grading: {{workers: 1}}
"""


class CoinPool:
    """Stands in for the grader pool: right or wrong by the text, about half of them."""

    def __init__(self, *settings) -> None:
        pass

    @classmethod
    def of(cls, *settings):
        return cls()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def check(self, problem) -> None:
        pass

    def submit(self, problem, rollout) -> Grade:
        correct = hashlib.blake2b(f"{problem.id} {rollout.text}".encode(), digest_size=1).digest()[0] < 128
        return Grade(float(correct), correct, "correct" if correct else "wrong")


@pytest.fixture
def coins(monkeypatch):
    monkeypatch.setattr(running, "GraderPool", CoinPool)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two models and a benchmark of which every other problem has guidance."""
    folder = tmp_path_factory.mktemp("made")
    write_model(folder / "model")
    write_model(folder / "other", "llama", seed=3)
    write_problems(folder / "sums.jsonl", 6)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of them."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def write_model(folder: Path, name: str = "qwen2", **config) -> None:
    tiny_model(name, **config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def write_problems(path: Path, count: int, **fields) -> None:
    """Sums; every other one has guidance."""
    rows = [
        {"id": str(i), "question": f"{i}+{i}=", "answer": str(2 * i), "stratum": "ab"[i % 2], "grader": "exact"}
        | ({"guidance": f"double {i}"} if i % 2 else {})
        | fields
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipe(folder: Path, *overrides: str) -> EvaluateRecipe:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(folder=folder))
    return read_recipe(EvaluateRecipe, path, overrides)


def evaluate(folder: Path, *overrides: str, again: bool = False) -> tuple[RunFolder, str]:
    """The run, and what was said."""
    said = io.StringIO()
    run = evaluate_models(recipe(folder, *overrides), again=again, console=Console(file=said, width=500))
    return run, said.getvalue()


def by_key(run: RunFolder, name: str) -> dict[str, dict]:
    """The lines of a file by what they are about, in no order."""
    fields = ("model", "step", "benchmark", "temperature", "guided", "problem_id", "index")
    return {str([row.get(field) for field in fields]): row for row in run.read(name)}


def test_every_rollout_and_result_is_written_as_others_read_it(folder):
    run, _ = evaluate(folder, "guided=true")
    problems, rollouts, results = (run.read(f"{name}.jsonl") for name in ("problems", "rollouts", "results"))
    assert problems[1] == {
        "set": "sums",
        "id": "1",
        "question": "1+1=",
        "answer": "2",
        "guidance": "double 1",
        "stratum": "b",
    }
    assert len(problems) == 6
    assert set(rollouts[0]) == {
        *("model", "step", "benchmark", "problem_id", "stratum", "index", "guided", "temperature", "reward", "correct"),
        *("verdict", "finish", "tokens", "text"),
    }
    kinds = [(0.0, False, 1)] * 6 + [(1.0, False, 4)] * 6 + [(1.0, True, 4)] * 3
    assert [(row["temperature"], row["guided"], len(row["correct"])) for row in results] == kinds
    for result in results:
        same = ("model", "step", "benchmark", "temperature", "guided", "problem_id", "stratum")
        own = [row for row in rollouts if all(row[field] == result[field] for field in same)]
        assert result["correct"] == [int(row["correct"]) for row in sorted(own, key=lambda row: row["index"])]
        assert result["tokens"] == sum(row["tokens"] for row in own)
        assert sum(result["outcomes"].values()) == len(own) == len(result["correct"])
        assert tuple(result["outcomes"]) == OUTCOMES
    assert all(row["finish"] != "length" or row["tokens"] == 12 for row in rollouts)


def test_greedy_runs_are_one_where_decoding_is_deterministic_and_five_elsewhere(folder):
    assert recipe(folder).runs_of_greedy == 1
    assert recipe(folder, "sampler=vllm").runs_of_greedy == 5
    run, said = evaluate(folder, "greedy_runs=3", "samples=0")
    assert "deterministic" in said
    texts = {(row["problem_id"], row["text"]) for row in run.read("rollouts.jsonl")}
    assert (len(run.read("rollouts.jsonl")), len(texts)) == (18, 6)


def test_results_do_not_depend_on_the_batch_or_on_what_else_is_evaluated(folder, coins):
    alone, _ = evaluate(folder, "batch_size=64")
    write_problems(folder / "more.jsonl", 9)
    among, _ = evaluate(
        folder,
        f"run={folder}/among",
        "batch_size=3",
        "guided=true",
        f"models={{other: {folder}/other, base: {folder}/model}}",
        f"benchmarks={{more: {folder}/more.jsonl, sums: {folder}/sums.jsonl}}",
    )
    for name in ("rollouts.jsonl", "results.jsonl"):
        expected = by_key(alone, name)
        assert expected.items() <= by_key(among, name).items()
    texts = {row["text"] for row in alone.read("rollouts.jsonl") if row["temperature"] == 1.0}
    assert len(texts) > 20, "samples differ"
    assert {c for row in alone.read("results.jsonl") for c in row["correct"]} == {0, 1}


def test_an_evaluation_of_a_checkpoint_is_the_one_that_training_made_of_it(folder):
    write_training_inputs(folder)
    path = folder / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"grader": "exact", "answer": "p"}) + "\n" for row in rows))
    trained = trainer(
        folder, "evaluation.every=3", "evaluation.samples=4", f"problems.evaluation={path}", f"run={folder}/t"
    )
    trained.fit()
    ours, _ = evaluate(
        folder,
        "stop=[]",
        f"models={{t: {folder}/t/checkpoints}}",
        f"benchmarks={{held: {path}}}",
        f"run={folder}/evaluated",
    )
    held_out = {
        (row["temperature"], row["problem_id"], row["index"]): row["text"]
        for row in trained.run.read("held_out.jsonl")
        if row["step"] == 3
    }
    found = {
        (row["temperature"], row["problem_id"], row["index"]): row["text"]
        for row in ours.read("rollouts.jsonl")
        if row["step"] == 3
    }
    assert found == held_out
    assert {row["step"] for row in ours.read("results.jsonl")} == {2, 3}


# ---------------------------------------------------------------------- again, later, after a kill


def test_a_finished_evaluation_is_not_repeated_unless_asked(folder, coins, monkeypatch):
    run, _ = evaluate(folder)
    before = {name: (run.path / name).read_bytes() for name in ("problems.jsonl", "rollouts.jsonl", "results.jsonl")}
    with monkeypatch.context() as patched:
        patched.setattr(running, "sample_setting", lambda *a, **k: pytest.fail("sampled again"))
        _, said = evaluate(folder)
    assert "nothing to do" in said
    assert before == {name: (run.path / name).read_bytes() for name in before}
    asked = []
    real = running.sample_setting
    monkeypatch.setattr(running, "sample_setting", lambda *a, **k: (asked.append(1), real(*a, **k))[1])
    evaluate(folder, again=True)
    assert len(asked) == 2
    assert before == {name: (run.path / name).read_bytes() for name in before}


@pytest.mark.parametrize("after", [0, 1, 4, 8])
def test_an_interrupted_evaluation_goes_on_and_comes_to_the_same(folder, coins, monkeypatch, after):
    whole, _ = evaluate(folder, f"run={folder}/whole")
    real = running.sample_setting
    seen = []

    def interrupted(*arguments, **options):
        for group in real(*arguments, **options):
            if len(seen) == after:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            seen.append(group)
            yield group

    with monkeypatch.context() as patched:
        patched.setattr(running, "sample_setting", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(folder)
    stopped = RunFolder(folder / "run")
    assert len(stopped.read("results.jsonl")) == after
    resumed, said = evaluate(folder)
    assert "going on" in said or not after
    for name in ("rollouts.jsonl", "results.jsonl"):
        assert len(resumed.read(name)) == len(whole.read(name))
        assert by_key(resumed, name) == by_key(whole, name)


@pytest.mark.parametrize("torn", ["rollouts", "half a rollout", "half a result", "half a problem"])
def test_what_a_kill_left_half_written_is_measured_again(folder, coins, torn):
    run, _ = evaluate(folder)
    whole = {name: by_key(run, name) for name in ("rollouts.jsonl", "results.jsonl", "problems.jsonl")}
    results = (run.path / "results.jsonl").read_text().splitlines(keepends=True)
    rollouts = (run.path / "rollouts.jsonl").read_text().splitlines(keepends=True)
    if torn == "half a problem":
        lines = (run.path / "problems.jsonl").read_text()
        (run.path / "problems.jsonl").write_text(lines[:-20])
    else:
        last = results.pop()
        (run.path / "results.jsonl").write_text("".join(results) + (last[:25] if torn == "half a result" else ""))
        if torn == "rollouts":
            rollouts = rollouts[:-1]
        if torn == "half a rollout":
            rollouts[-2:] = [rollouts[-2][:40]]
        (run.path / "rollouts.jsonl").write_text("".join(rollouts))
    again, _ = evaluate(folder)
    for name, lines in whole.items():
        assert by_key(again, name) == lines
        assert len(again.read(name)) == len(RunFolder(run.path).read(name))
    assert len(again.read("rollouts.jsonl")) == len(whole["rollouts.jsonl"])
    assert (run.path / "rollouts.jsonl").read_bytes().endswith(b"}\n")


def test_a_disk_that_fills_up_leaves_no_result_without_its_rollouts(folder, coins, monkeypatch):
    whole, _ = evaluate(folder, f"run={folder}/whole")
    real, count = RunFolder.append, Counter()

    def append(run, name, rows):
        count[name] += 1
        if (name, count[name]) == ("rollouts.jsonl", 9):
            real(run, name, list(rows)[:2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(run, name, rows)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "append", append)
        with pytest.raises(OSError, match="No space"):
            evaluate(folder)
    assert len(RunFolder(folder / "run").read("results.jsonl")) == 8
    again, _ = evaluate(folder)
    assert sorted(map(str, again.read("rollouts.jsonl"))) == sorted(map(str, whole.read("rollouts.jsonl")))


@pytest.mark.e2e
def test_a_killed_evaluation_loses_at_most_the_problems_in_flight(folder):
    write_problems(folder / "sums.jsonl", 60)
    settings = ("samples=4", "max_tokens=40", "stop=[]", "batch_size=4")
    whole, _ = evaluate(folder, f"run={folder}/whole", *settings)
    recipe(folder)
    command = [sys.executable, "-m", "guide_rl.cli", "evaluate", str(folder / "recipe.yaml"), *settings]
    results, kept = folder / "run/results.jsonl", 0
    for wanted in (10, 70):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (results.exists() and results.read_bytes().count(b"\n") >= wanted):
            assert time.monotonic() < deadline
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert results.read_bytes().count(b"\n") >= max(wanted, kept)
        kept = results.read_bytes().count(b"\n")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on" in done.stderr
    run = RunFolder(folder / "run")
    for name in ("rollouts.jsonl", "results.jsonl"):
        assert by_key(run, name) == by_key(whole, name)
        assert len(run.read(name)) == len(whole.read(name))


def test_models_and_benchmarks_may_be_added_and_nothing_is_measured_twice(folder, coins):
    run, _ = evaluate(folder)
    first = by_key(run, "results.jsonl")
    write_problems(folder / "more.jsonl", 3)
    evaluate(folder, f"models={{other: {folder}/other}}", f"benchmarks={{more: {folder}/more.jsonl}}")
    both = run.recipe()
    assert (list(both["models"]), list(both["benchmarks"])) == (["base", "other"], ["sums", "more"])
    evaluate(
        folder,
        f"models={{base: {folder}/model, other: {folder}/other}}",
        f"benchmarks={{sums: {folder}/sums.jsonl, more: {folder}/more.jsonl}}",
    )
    rows = run.read("results.jsonl")
    assert len(rows) == len(by_key(run, "results.jsonl")) == 2 * 2 * (6 + 3)
    assert first.items() <= by_key(run, "results.jsonl").items()
    tiny_model("qwen2", seed=9).save_pretrained(folder / "model")
    evaluate(folder, f"models={{other: {folder}/other}}")
    with pytest.raises(ValueError, match=r"models\.base has changed"):
        evaluate(folder)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("temperature=0.5", "temperature: 1.0 -> 0.5"),
        ("samples=8", "samples: 4 -> 8"),
        ("max_tokens=13", "max_tokens: 12 -> 13"),
        ("seed=1", "seed: 0 -> 1"),
        ("prompts.system=Be brief.", "prompts.system"),
        ("models={base: FOLDER/other}", "models.base"),
    ],
)
def test_other_settings_are_refused_with_their_names(folder, setting, named):
    evaluate(folder)
    with pytest.raises(ValueError, match="another recipe") as error:
        evaluate(folder, setting.replace("FOLDER", str(folder)))
    assert named in str(error.value)
    evaluate(folder, "batch_size=7", "k=2", "grading.workers=2")


def test_other_files_under_the_same_name_are_refused(folder):
    evaluate(folder)
    tiny_model("qwen2", seed=9).save_pretrained(folder / "model")
    with pytest.raises(ValueError, match=r"models\.base has changed"):
        evaluate(folder)
    run, _ = evaluate(folder, again=True)
    write_problems(folder / "sums.jsonl", 7)
    with pytest.raises(ValueError, match=r"benchmarks\.sums has changed"):
        evaluate(folder)
    shutil.rmtree(run.path)
    run, _ = evaluate(folder)
    with (run.path / "recipe.yaml").open("a") as file:
        file.write("seed: 4\n")
    with pytest.raises(ValueError, match="was edited"):
        evaluate(folder)


@pytest.mark.parametrize("place", [0, 2_000_000, 2**22 - 1])
def test_changed_weights_are_noticed_in_files_too_large_to_be_read_whole(tmp_path, monkeypatch, place):
    monkeypatch.setattr(models, "WHOLE_BYTES", 100)
    weights = bytearray(2**22)
    (tmp_path / "model.safetensors").write_bytes(weights)
    before = models.fingerprint(tmp_path)
    assert models.fingerprint(tmp_path) == before
    weights[place] = 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert models.fingerprint(tmp_path) != before


def test_a_folder_of_something_else_is_left_alone(folder):
    write_training_inputs(folder)
    trained = trainer(folder, f"run={folder}/t")
    before = sorted(path.name for path in trained.run.path.iterdir())
    for again in (False, True):
        with pytest.raises(FileExistsError, match="not an evaluation's"):
            evaluate(folder, f"run={folder}/t", again=again)
    assert before == sorted(path.name for path in trained.run.path.iterdir() if path.name != ".lock")


def test_one_process_at_a_time(folder):
    run, _ = evaluate(folder)
    with run.lock(), pytest.raises(BlockingIOError, match="another process"):
        evaluate(folder)


# ---------------------------------------------------------------------- what is evaluated


def test_models_are_found_in_folders_runs_and_checkpoints(tmp_path):
    def place(name: str, *files: str) -> str:
        (tmp_path / name).mkdir(parents=True)
        for file in (*files, "tokenizer.json"):
            (tmp_path / name / file).write_text("{}")
        return str(tmp_path / name)

    model = place("plain", "config.json")
    finished = place("finished", "recipe.yaml")
    last = place("finished/model", "config.json")
    running_ = place("running", "recipe.yaml")
    steps = [place(f"running/checkpoints/step-{step:06d}", "adapter_config.json") for step in (100, 50)]
    given = {"a": model, "b": finished, "c": running_, "d": f"{running_}/checkpoints", "e": steps[1], "f": "org/name"}
    found = find_models(EvaluateRecipe(models=given, benchmarks={"x": "x.jsonl"}))
    assert [(m.name, m.step, m.path) for m in found] == [
        ("a", None, model),
        ("b", None, last),
        ("c", 100, steps[0]),
        ("d", 50, steps[1]),
        ("d", 100, steps[0]),
        ("e", 50, steps[1]),
        ("f", None, "org/name"),
    ]


def test_a_path_into_a_folder_that_is_there_is_no_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match=r"models\.m: runs/missing: no such folder"):
        find_models(EvaluateRecipe(models={"m": "runs/missing"}, benchmarks={"x": "x.jsonl"}))


def test_a_recipe_of_problems_is_a_benchmark_and_is_run_when_it_was_not(folder):
    (folder / "raw.jsonl").write_text("".join(json.dumps({"q": f"{i}+1=", "a": "p"}) + "\n" for i in range(3)))
    (folder / "bench.yaml").write_text(
        f"sources: {{s: {{path: {folder}/raw.jsonl, columns: {{question: q, answer: a}}, constants: {{grader: exact}}}}}}\n"
        f"out: {folder}/data\n"
    )
    setting = f"benchmarks={{bench: {folder}/bench.yaml}}"
    run, said = evaluate(folder, setting)
    assert f"making {folder}/data" in said
    assert len(run.read("problems.jsonl")) == 3
    _, said = evaluate(folder, setting)
    assert "making" not in said


def test_guided_samples_leave_out_problems_without_guidance_and_count_them(folder):
    run, said = evaluate(folder, "guided=true")
    guided = [row for row in run.read("results.jsonl") if row["guided"]]
    assert {row["problem_id"] for row in guided} == {"1", "3", "5"}
    assert "sums: 3 of 6 problems have no guidance" in said
    plain = {row["text"] for row in run.read("rollouts.jsonl") if row["temperature"] and not row["guided"]}
    assert {row["text"] for row in run.read("rollouts.jsonl") if row["guided"]} - plain


def test_prompts_over_the_limit_are_left_out_and_counted(folder):
    with (folder / "sums.jsonl").open("a") as file:
        file.write(json.dumps({"id": "long", "question": "1+" * 40, "answer": "p", "grader": "exact"}) + "\n")
    run, said = evaluate(folder, "prompts.max_tokens=20")
    assert "sums: 1 problems left out for base" in said
    assert "long" not in {row["problem_id"] for row in run.read("results.jsonl")}


# ---------------------------------------------------------------------- what is refused, before anything is sampled


def no_tokenizer(folder: Path) -> None:
    for file in (folder / "model").glob("tokenizer*"):
        file.unlink()


def no_answer(folder: Path) -> None:
    with (folder / "sums.jsonl").open("a") as file:
        file.write('{"id": "x", "question": "1+1="}\n')


def unknown_grader(folder: Path) -> None:
    write_problems(folder / "sums.jsonl", 3, grader="psychic")


def no_positions(folder: Path) -> None:
    write_model(folder / "model", max_position_embeddings=17)


def no_guidance(folder: Path) -> None:
    write_problems(folder / "sums.jsonl", 3, guidance=None)


def no_model(folder: Path) -> None:
    (folder / "model/config.json").unlink()


def a_state_space_model(folder: Path) -> None:
    shutil.rmtree(folder / "other")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "vocab_size": 101}
    MambaForCausalLM(MambaConfig(**size)).save_pretrained(folder / "other")
    tiny_tokenizer().save_pretrained(folder / "other")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "settings", "message"),
    [
        (nothing, ["models={base: FOLDER/missing}"], r"models\.base: .*missing: no such folder"),
        (no_model, [], r"models\.base: .* holds no model \(no config\.json\); give"),
        (nothing, ["models={base: FOLDER/model, b: org/unknown}"], r"models\.b \(org/unknown\): .*HF_HUB_OFFLINE"),
        (no_tokenizer, [], r"models\.base: .* holds no tokenizer .*; copy"),
        (no_answer, [], r"benchmarks\.sums: .*line 7: field 'answer' is missing or empty; give the problem its answer"),
        (nothing, ["benchmarks={a: FOLDER/a.jsonl}"], r"benchmarks\.a: .*a\.jsonl: no such problem file"),
        (nothing, ["benchmarks={a: FOLDER/a.yaml}"], r"benchmarks\.a: .*a\.yaml: no such file"),
        (unknown_grader, [], r"benchmarks\.sums: .*sums\.jsonl, problem '0': .*psychic"),
        (no_positions, [], r"models\.base .*exceed the model's max_position_embeddings of 17; lower max_tokens to"),
        (
            a_state_space_model,
            ["models={base: FOLDER/model, other: FOLDER/other}"],
            r"models\.other .*Mamba.* keeps a state other than .*; take another model",
        ),
        (no_guidance, ["guided=true"], r"guided is set and no problem has guidance"),
        (
            nothing,
            ["samples=4", "k=8"],
            r"pass@8 needs at least 8 rollouts a problem and samples is 4; raise samples or",
        ),
        (nothing, ["sampler=vllm"], r"sampler vllm needs the package vllm, .*; install it"),
        (nothing, ["sampler=chat"], r"chat goes with sampler chat"),
        (nothing, ["samples=0", "greedy_runs=0"], r"greedy_runs and samples are both 0"),
        (nothing, ["models={}"], r"models is empty; name one"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_sampled(folder, monkeypatch, spoil, settings, message):
    if "vllm" in message:
        monkeypatch.setattr("guide_rl.evaluation.sampling.find_spec", lambda name: None)
    spoil(folder)
    with pytest.raises((ValueError, OSError), match=message) as error:
        evaluate(folder, *(setting.replace("FOLDER", str(folder)) for setting in settings))
    assert "\n" not in str(error.value)
    assert not (folder / "run").exists()


CODE = {"grader": "unit_tests", "answer": "1", "metadata": {"tests": "assert f(1) == 1"}}


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
def test_an_evaluation_with_code_stops_before_it_samples_where_no_sandbox_starts(folder, monkeypatch):
    break_bubblewrap(folder, monkeypatch)
    write_problems(folder / "code.jsonl", 2, **CODE)
    benchmarks = f"benchmarks={{sums: {folder}/sums.jsonl, code: {folder}/code.jsonl}}"
    with pytest.raises(GraderSetupError, match="bubblewrap cannot start a sandbox here"):
        evaluate(folder, benchmarks, "max_tokens=1")  # Too short to be graded.
    assert not (folder / "run").exists()
    evaluate(folder, "max_tokens=1")


@needs_sandbox
@pytest.mark.e2e
def test_an_evaluation_with_code_runs_it_and_leaves_no_process_behind(folder):
    write_problems(folder / "sums.jsonl", 2, **CODE)
    before = children()
    run, _ = evaluate(folder)
    verdicts = {row["verdict"] for row in run.read("rollouts.jsonl") if row["text"].strip()}
    assert verdicts - {"truncated"}
    assert all(verdict == "truncated" or verdict.startswith("error: ") for verdict in verdicts), verdicts
    assert children() <= before


def test_out_of_memory_names_the_field_and_goes_on_with_less(folder, monkeypatch):
    real = TransformersSampler._step

    def step(sampler):
        if sampler.progress.active > 2:
            raise RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 1 byte")
        return real(sampler)

    monkeypatch.setattr(TransformersSampler, "_step", step)
    with pytest.raises(MemoryError, match=r"lower batch_size or .*; the same command goes on\. .*can't allocate"):
        evaluate(folder)
    run, _ = evaluate(folder, "batch_size=2")
    assert len(run.read("results.jsonl")) == 12


def test_a_lora_checkpoint_is_evaluated_with_its_adapter(folder):
    write_training_inputs(folder)
    trained = trainer(folder, "model.lora.rank=4", "optimizer.learning_rate=0.5", f"run={folder}/t")
    trained.fit()
    run, _ = evaluate(
        folder, f"models={{lora: {folder}/t/checkpoints/step-000003, whole: {folder}/t, base: {folder}/model}}"
    )
    texts = {
        name: [row["text"] for row in run.read("rollouts.jsonl") if row["model"] == name]
        for name in ("lora", "whole", "base")
    }
    assert texts["lora"] == texts["whole"] != texts["base"]
    assert {row["step"] for row in run.read("results.jsonl") if row["model"] == "lora"} == {3}


# ---------------------------------------------------------------------- what is counted and shown


@pytest.mark.parametrize(
    ("text", "finish", "verdict", "expected"),
    [
        ("4", "eos", "correct", "correct"),
        ("5", "stop", "wrong", "wrong"),
        ("5", "length", "truncated", "truncated"),
        ("", "length", "truncated", "truncated"),
        (" \n", "eos", "no answer", "empty"),
        ("hm", "eos", "no answer", "ungradable"),
        ("4", "eos", "timeout", "ungradable"),
        ("4", "eos", "memory", "ungradable"),
        ("4", "eos", "crashed", "ungradable"),
        ("4", "eos", "error: KeyError", "ungradable"),
    ],
)
def test_outcomes_are_told_apart(text, finish, verdict, expected):
    rollout = Rollout("0", 0, False, (1,), (2,), (0.0,), text, finish, 0.0)
    grade = Grade(float(verdict == "correct"), verdict == "correct", verdict)
    assert outcome(Problem("0", "q", "4"), rollout, grade) == expected


@pytest.mark.parametrize("verdict", ["error: SyntaxError", "error: exit", "timeout", "memory", "forbidden"])
def test_code_that_fails_is_wrong_and_not_ungradable(verdict):
    rollout = Rollout("0", 0, False, (1,), (2,), (0.0,), "while True: pass", "eos", 0.0)
    assert outcome(Problem("0", "q", "a", grader="unit_tests"), rollout, Grade(0.0, False, verdict)) == "wrong"


@pytest.mark.parametrize("verdict", ["crashed", "error: SandboxEndedError", "no answer"])
def test_code_that_did_not_get_to_run_is_ungradable(verdict):
    rollout = Rollout("0", 0, False, (1,), (2,), (0.0,), "x", "eos", 0.0)
    assert outcome(Problem("0", "q", "a", grader="unit_tests"), rollout, Grade(0.0, False, verdict)) == "ungradable"


def line(model: str, benchmark: str, problem: str, temperature: float, right: str, **counts: int) -> dict:
    """A line of results."""
    outcomes = dict.fromkeys(OUTCOMES, 0) | {"wrong": len(right) - sum(counts.values())} | counts
    corrects = [int(c) for c in right]
    what = {"model": model, "step": None, "benchmark": benchmark, "temperature": temperature, "guided": False}
    return what | {"problem_id": problem, "stratum": "", "correct": corrects, "outcomes": outcomes, "tokens": 1}


def test_the_table_by_hand():
    results = [
        line("m", "a", "0", 0.0, "1", correct=1),
        line("m", "a", "1", 0.0, "0", empty=1),
        line("m", "b", "0", 0.0, "1", correct=1),
        line("m", "a", "0", 1.0, "1000", correct=1, truncated=1),
        line("m", "a", "1", 1.0, "0000", ungradable=2),
        line("m", "b", "0", 1.0, "1111", correct=4),
        line("another", "b", "0", 1.0, "0000"),
    ]
    shown = EvaluateRecipe(models={"m": "x"}, benchmarks={"a": "a", "b": "b"}, samples=4, k=2)
    printed = io.StringIO()
    print_table(shown, [EvaluatedModel("m", None, "x")], results, Console(file=printed, width=200))
    cells = {row.split("  ")[0]: row.split() for row in printed.getvalue().splitlines()}
    assert cells["a"][1::2][:2] == ["50.0", "25.0"]  # greedy 1 of 2; pass@2 of 1 in 4 is 1/2, of 0 in 4 is 0
    assert cells["a"][2] == "±50.0"  # of two problems, one right: drawn again, none or both may be
    assert cells["a"][-1] == "10.0/20.0/10.0"  # of 10 rollouts
    assert cells["b"][1::2][:2] == ["100.0", "100.0"]
    assert cells["macro average"][2::2][:2] == ["75.0", "62.5"]
    assert cells["micro average"][2::2][:2] == ["66.7", "50.0"]
    assert cells["micro average"][-1] == "6.7/13.3/6.7"


def test_the_command_prints_the_table_and_says_what_is_wrong_in_a_line(folder, capsys):
    recipe(folder)
    main(["evaluate", str(folder / "recipe.yaml"), "samples=2"])
    printed = capsys.readouterr()
    assert any(line.split()[:2] == ["P@1", "P@2"] for line in printed.out.splitlines())
    assert sum(line.startswith("sums ") for line in printed.out.splitlines()) == 1
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", str(folder / "recipe.yaml"), "samples=2", "seed=3"])
    assert exit_.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("guide evaluate: error: ")


# ---------------------------------------------------------------------- what the docs say

COMMANDS = re.findall(r"^(guide evaluate .*?)(?: +#.*)?$", (ROOT / "docs/evaluation.md").read_text(), re.M)


def test_every_command_of_the_docs_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("guide_rl.evaluation.sampling.find_spec", lambda name: name != "vllm" or None)
    write_problems(folder / "held_out.jsonl", 2)
    small = RECIPE.replace("{{", "{").replace("}}", "}").replace("{folder}/", "").replace("stop: [u, T]\n", "")
    files = {"recipes/evaluate.yaml": small.replace("run: run", "run: runs/evaluation")}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "data").mkdir()
    shutil.move(folder / "held_out.jsonl", folder / "data/held_out.jsonl")
    for step in (50, 100):
        shutil.copytree(folder / "model", folder / f"runs/guide_grpo/checkpoints/step-{step:06d}")
    said = []
    with FaultyServer() as server:
        for command in COMMANDS:
            words = shlex.split(command.replace("http://127.0.0.1:8000/v1", server.base_url))[1:]
            if "sampler=vllm" in words:
                with pytest.raises(SystemExit):
                    main(words)
            else:
                main(words)
            said.append(capsys.readouterr())
    assert len(said) == 7
    assert "nothing to do" in said[1].err
    assert "guide, step 50" in said[2].out
    assert "guided P@4" in said[3].out
    assert "needs the package vllm" in said[4].err
    assert "served" in said[5].out
    assert "nothing to do" not in said[6].err
