"""The command line as its user meets it: one line says what is wrong and what to write, help fits a terminal."""

import json
import subprocess
import sys

import pytest

import guide_rl.trainers.export
from guide_rl import cli
from guide_rl.cli import main, parse, split
from guide_rl.config import LoraConfig, SFTRecipe, TrainRecipe
from guide_rl.recipes import fields_of, read_recipe

SMALL = "model: {path: m}\nproblems: {train: p.jsonl}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a small recipe r.yaml."""
    (tmp_path / "r.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "twice.yaml").write_text("steps: 1\nmodel: {path: m}\nsteps: 2\n")
    return tmp_path


def usage_error(capsys, *arguments: str) -> str:
    """What standard error says of wrong arguments, which is one line, with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trian", "guide: error: no command trian; did you mean train?"),
        ("--what", "guide: error: unrecognized arguments: --what"),
        ("train", "not set: model.path, problems.train; set it in a recipe, or as model.path=VALUE"),
        ("train nope.yaml", "nope.yaml: no such file"),
        ("train --resume nope", "nope holds no run (no recipe.yaml)"),
        ("demo --rollouts=0", "--rollouts must be at least 1, not 0"),
        ("train twice.yaml", "twice.yaml: not YAML: steps stands twice, the second time in line 3"),
        ("train --resume", "--resume takes a run folder"),
        ("train r.yaml --dry-rn", "unrecognized arguments: --dry-rn"),
        ("train r.yaml seed", "seed: no such file; a recipe is a YAML file, an override field=value"),
        ("train r.yaml loss.bta=0.1", "guide train: error: unknown field loss.bta; did you mean loss.beta?"),
        ("train r.yaml --loss.bta=0.1", "unknown field loss.bta; did you mean loss.beta?"),
        ("train r.yaml xyzzy=1", "unknown field xyzzy; --help lists all"),
        ("sft r.yaml", "guide sft: error: r.yaml: problems must be text, not {'train': 'p.jsonl'}"),
        ("train r.yaml loss=3", "loss is a section; set its fields, such as loss.advantages"),
        ("train r.yaml loss.beta=null", "loss.beta must be a number, not null"),
        ("train r.yaml loss.beta=x", "loss.beta must be a number, not x"),
        ("train r.yaml guidance.k_guided=x", "guidance.k_guided must be a whole number or null, not x"),
        ("train r.yaml loss.clip_guided=x", "loss.clip_guided must be true or false, not x"),
        ("train r.yaml prompts.too_long=x", "prompts.too_long must be one of skip, fail, not x"),
        ("train r.yaml optimizer.betas=[1]", "optimizer.betas must be a list of 2, each a number, not [1]"),
        ("train r.yaml sampling.stop=x", "sampling.stop must be a list such as [a, b], not x"),
        (
            "train r.yaml trackers=tensorboard",
            "trackers must be a list of tensorboard, wandb, trackio, such as [tensorboard], not tensorboard",
        ),
        ("train r.yaml model.lora=true", "model.lora must be fields such as {rank: 16, alpha: 32, "),
        ("train r.yaml model.lora.rnk=8", "unknown field model.lora.rnk; did you mean model.lora.rank?"),
        ("train r.yaml model.lora.rank=x", "model.lora.rank must be a whole number, not x"),
        ("train r.yaml model.lora.rank=0", "guide train: error: model.lora.rank must be at least 1, not 0"),
        ("export runs/a", "guide export: error: the following arguments are required: FOLDER"),
        ("demo --seed x", "guide demo: error: argument --seed: invalid int value: 'x'"),
    ],
)
def test_a_usage_error_is_one_line_with_the_field_and_the_remedy(folder, capsys, arguments, said):
    assert said in usage_error(capsys, *arguments.split())


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("loss: {bta: 1}", "unknown field loss.bta; did you mean loss.beta?"),
        ("los: 1", "unknown field los; did you mean loss?"),
        ("5: 1", "unknown field 5"),
        ("loss: 3", "loss is a section"),
        ("loss:", "loss is a section"),
        ("loss: {beta: null}", "loss.beta must be a number, not null"),
        ("seed: x", "seed must be a whole number, not x"),
        ("trackers: wandb", "trackers must be a list of tensorboard, wandb, trackio, such as [tensorboard], not wandb"),
        ("trackers: [x]", "trackers must be a list of"),
        ("prompts: {guided_template: {question}}", "prompts.guided_template must be text, not {'question': None}"),
        ("model.lora: 3", "model.lora must be fields such as {rank: 16"),
        ("model.lora: {rank: x}", "model.lora.rank must be a whole number, not x"),
        ("model.lora: {rnk: 8}", "unknown field model.lora.rnk; did you mean model.lora.rank?"),
        ("loss: [", "not YAML"),
    ],
)
def test_a_mistake_in_a_file_names_the_file_and_the_field(folder, capsys, lines, said):
    (folder / "wrong.yaml").write_text(SMALL + lines)
    assert f"wrong.yaml: {said}" in usage_error(capsys, "train", "wrong.yaml")


@pytest.mark.parametrize("text", ["", "- a", "text"])
def test_a_file_without_fields_is_refused(folder, capsys, text):
    (folder / "wrong.yaml").write_text(text)
    assert "wrong.yaml: holds no fields" in usage_error(capsys, "train", "wrong.yaml")


@pytest.mark.parametrize("override", ["model.lora.rank=8", "model.lora={rank: 8}"])
def test_lora_is_asked_for_by_any_of_its_fields(folder, override):
    assert read_recipe(TrainRecipe, "r.yaml", [override]).model.lora == LoraConfig(rank=8)


def test_text_fields_take_text_that_looks_like_something_else(folder):
    template = "{question}: [{guidance}]"
    recipe = read_recipe(TrainRecipe, "r.yaml", [f"prompts.guided_template={template}", "prompts.system=", "run=7"])
    assert (recipe.prompts.guided_template, recipe.prompts.system, recipe.run) == (template, "", "7")


def test_arguments_are_files_overrides_and_options():
    arguments = ["r.yaml", "loss.beta=0.1", "--seed=3", "--dry-run", "--resume", "runs/x", "s.yaml"]
    files, overrides, options = split(arguments)
    assert files == ["runs/x/recipe.yaml", "r.yaml", "s.yaml"]
    assert overrides == ["loss.beta=0.1", "seed=3"]
    assert options == ["--dry-run", "--resume=runs/x"]
    assert split(["--resume=runs/x"]) == split(["--resume", "runs/x"])


def test_sft_resumes_with_the_runs_own_recipe(folder, monkeypatch):
    sft = pytest.importorskip("guide_rl.trainers.sft")
    calls = []
    monkeypatch.setattr(sft, "run_sft", lambda recipe, *, resume: calls.append((recipe, resume)))
    (folder / "recipe.yaml").write_text("model: {path: m}\nproblems: p.jsonl\n")
    main(["sft", "recipe.yaml"])
    main(["sft", "--resume", ".", "epochs=3"])
    recipe = read_recipe(SFTRecipe, "recipe.yaml")
    assert calls == [(recipe, None), (read_recipe(SFTRecipe, "recipe.yaml", ["epochs=3"]), ".")]


def test_export_takes_the_newest_checkpoint_or_the_best(monkeypatch):
    calls = []
    monkeypatch.setattr(
        guide_rl.trainers.export, "export_checkpoint", lambda *args, best: calls.append((*map(str, args), best))
    )
    main(["export", "runs/a", "out"])
    main(["export", "runs/a", "out", "--best"])
    assert calls == [("runs/a", "out", False), ("runs/a", "out", True)]


@pytest.mark.parametrize("command", [None, *cli.COMMANDS])
def test_help_fits_a_terminal_and_shows_fields_as_they_are_typed(folder, capsys, command):
    with pytest.raises(SystemExit) as stop:
        main(["--help"] if command is None else [command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: guide {command or 'COMMAND'} ")
    assert max(map(len, text.splitlines())) <= 90
    shown = {line.split("=")[0].strip() for line in text.splitlines() if "=" in line}
    fields = fields_of({"train": TrainRecipe, "sft": SFTRecipe}[command]) if command in ("train", "sft") else {}
    sections = {name.rpartition(".")[0] for name in fields} - {"model.lora"}  # --model.lora.help shows its fields
    assert {name for name in fields if not name.startswith("model.lora.")} - sections <= shown
    assert "CONFIG" not in text.replace("config.", "").replace("SYSTEM_PROMPTS", "")


def test_a_command_is_parsed_before_it_runs(folder):
    assert callable(parse("train", ["r.yaml"]))


@pytest.mark.parametrize(
    ("command", "recipe", "said"),
    [
        ("train", "model: {path: m}\nproblems: p.jsonl\n", "is a run of guide sft: guide sft --resume RUN"),
        ("sft", SMALL, "is a run of guide train: guide train --resume RUN"),
        ("train", "models: {}\nbenchmarks: {}\n", "is a run of guide evaluate, which goes on when the same command"),
    ],
)
def test_a_run_of_another_command_says_which(tmp_path, capsys, command, recipe, said):
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert said.replace("RUN", str(tmp_path)) in usage_error(capsys, command, "--resume", str(tmp_path))


def test_output_that_is_cut_off_by_its_reader_is_no_error(tmp_path):
    rows = "".join(json.dumps({"question": f"What is {i}?" + "x" * 100, "answer": "1"}) + "\n" for i in range(2000))
    (tmp_path / "p.jsonl").write_text(rows)
    command = f"{sys.executable} -m guide_rl.cli problems --show 2000 {tmp_path}/p.jsonl | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize(("missing", "extra"), [("trl.trainer", "train"), ("openai", "guidance"), ("verl", "verl")])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, capsys, missing, extra):
    def run():
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(cli, "parse", lambda name, rest: run)
    with pytest.raises(SystemExit) as stop:
        main(["sft", "recipe.yaml"])
    assert stop.value.code == 1
    assert f"{missing.partition('.')[0]}: pip install 'guide-rl[{extra}]'" in capsys.readouterr().err


def test_a_missing_package_that_nobody_knows_shows_its_traceback(monkeypatch):
    monkeypatch.setattr(cli, "parse", lambda name, rest: lambda: __import__("no_such_package"))
    with pytest.raises(ModuleNotFoundError):
        main(["sft", "recipe.yaml"])
