"""docs/cluster.md: its commands, scripts, lists and tables are what the code takes, says and computes."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from guide_rl.cli import main, parse
from guide_rl.config import TrainRecipe
from guide_rl.recipes import fields_of, read_recipe
from guide_rl.theory.tables import fill
from guide_rl.trainers.verl.fields import MAPPED, MEGATRON_REFUSALS, REFUSALS
from guide_rl.trainers.verl.private import VERSION

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/cluster.md").read_text()
RECIPE = "recipes/paper/guide_grpo_7b.yaml"
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.S)
LINES = [line.split(" #")[0].strip() for language, block in BLOCKS if not language for line in block.splitlines()]
GUIDE = [line for line in LINES if line.startswith("guide ")]
RAY = [line for line in LINES if line.startswith("ray ")]
SCRIPTS = [block for language, block in BLOCKS if language == "bash"]
FIELDS = fields_of(TrainRecipe)
EXTRA = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["verl"]
cluster = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]


def on_the_cluster(test):
    for mark in cluster:
        test = mark(test)
    return test


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which the page's relative paths exist."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    run = tmp_path / "runs/paper/guide_grpo_7b"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text((ROOT / RECIPE).read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def memory():
    """benchmarks/cluster_memory.py."""
    spec = importlib.util.spec_from_file_location("cluster_memory", ROOT / "benchmarks/cluster_memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------- commands


@pytest.mark.parametrize("command", GUIDE)
def test_every_command_parses(command, folder):
    name, *arguments = shlex.split(command)[1:]
    parse(name, arguments)


def test_the_command_that_sizes_a_recipe_runs(folder):
    (command,) = (line for line in LINES if line.startswith("python benchmarks/"))
    said = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert said.stdout.startswith("32.76 billion weights on 32 GPUs")


@on_the_cluster
@pytest.mark.parametrize("command", [command for command in GUIDE if "--print-config" in command])
def test_what_verl_gets_is_printed(command, folder, capsys):
    main(shlex.split(command)[1:])
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["nnodes"] == 2


@on_the_cluster
def test_every_node_prints_its_versions():
    (command,) = (line for line in LINES if line.startswith("python -c"))
    said = subprocess.run([sys.executable, *shlex.split(command)[1:]], check=True, capture_output=True, text=True)
    assert said.stdout.split()[1] == VERSION


@on_the_cluster
@pytest.mark.parametrize("command", RAY)
def test_rays_commands_are_ones_that_ray_takes(command):
    taken(shlex.split(command)[1:])


@on_the_cluster
def test_the_slurm_script_starts_ray_with_options_that_ray_takes():
    (script,) = (script for script in SCRIPTS if "srun" in script)
    command = re.search(r"srun .*?ray (symmetric-run .*?) -- bash train.sh", script.replace("\\\n", ""))[1]
    name, *arguments = shlex.split(re.sub(r"\$\w+", "1", command))
    taken([name, *arguments, "--", "bash", "train.sh"])
    shared = {"--address", "--min-nodes"}
    of_start = [f"{option}=1" for option in arguments if option.startswith("--") and option not in shared]
    taken(["start", *of_start])


def taken(arguments):
    """Have Ray's own parser read a command, and not run it."""
    click = pytest.importorskip("click")
    cli = pytest.importorskip("ray.scripts.scripts", reason="ray is not installed").cli
    context = click.Context(cli)
    command = cli
    while isinstance(command, click.Group):
        name, command, arguments = command.resolve_command(context, arguments)
        assert command is not None, name
    command.make_context(name, list(arguments), parent=context)


@on_the_cluster
def test_verls_keys_on_the_page_exist_and_have_the_defaults_that_it_says():
    from omegaconf import OmegaConf

    from guide_rl.trainers.verl.config import verl_config

    base = verl_config(read_recipe(TrainRecipe, ROOT / RECIPE, ["verl={}"]))
    said = [line for line in LINES if line.startswith("verl.")]
    assert len(said) == 10
    for line in said:
        key, _, value = line.removeprefix("verl.").partition("=")
        assert OmegaConf.select(base, key) == yaml.safe_load(value), key
    without_flash = re.search(r"Without flash-attn: `([^`]*)`", TEXT)[1].split()
    assert verl_config(read_recipe(TrainRecipe, ROOT / RECIPE, [*said[:-1], *without_flash]))


# ---------------------------------------------------------------------- scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=["train.sh", "guide.sbatch"])
def test_scripts_are_bash(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_script_starts_a_run_and_then_goes_on_with_it(folder):
    (folder / "bin").mkdir()
    (folder / "bin/guide").write_text('#!/bin/bash\necho "guide $*"\n')
    (folder / "bin/guide").chmod(0o755)
    script = SCRIPTS[0].replace("/shared/guide", str(folder))
    path = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}

    def said() -> list[str]:
        done = subprocess.run(["bash", "-c", script], env=path, check=True, capture_output=True, text=True)
        return shlex.split(done.stdout)[1:]

    name, *arguments = said()
    assert arguments == [RECIPE, "run=runs/paper/guide_grpo_7b"]
    parse(name, arguments)
    (folder / "runs/paper/guide_grpo_7b/checkpoints/step-000026").mkdir(parents=True)
    name, *arguments = said()
    assert arguments == ["--resume", "runs/paper/guide_grpo_7b"]
    parse(name, arguments)


def test_the_pods_have_the_gpus_that_the_recipe_asks_for_and_the_versions_that_are_installed():
    (text,) = (block for language, block in BLOCKS if language == "yaml")
    spec = yaml.safe_load(text)["spec"]
    cluster_spec = spec["rayClusterSpec"]
    (workers,) = cluster_spec["workerGroupSpecs"]
    pods = {"head": cluster_spec["headGroupSpec"]["template"], "workers": workers["template"]}
    gpus = {
        name: int(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) for name, pod in pods.items()
    }
    asked = read_recipe(TrainRecipe, ROOT / RECIPE).verl["trainer"]
    assert gpus == dict.fromkeys(pods, asked["n_gpus_per_node"])
    assert 1 + workers["replicas"] == asked["nnodes"]
    assert spec["entrypoint"] == "bash /shared/guide/train.sh"
    assert f"ray[default]>={cluster_spec['rayVersion'].rpartition('.')[0]}" in " ".join(EXTRA)


def test_the_version_of_verl_is_the_pinned_one():
    assert f"verl=={VERSION}" in EXTRA
    assert set(re.findall(r"verl(?:\[vllm\]==|\]?\([^)]*\) | )(\d+\.\d+\.\d+)", TEXT)) == {VERSION}


# ---------------------------------------------------------------------- lists


def test_the_refused_fields_are_those_of_the_code():
    said = re.findall(r"^- `([\w.]+)` (.*)$", TEXT, re.M)
    everywhere, megatron = ([(field, why) for field, (_, why) in d.items()] for d in (REFUSALS, MEGATRON_REFUSALS))
    assert said[: len(everywhere)] == everywhere
    assert said[len(everywhere) : len(everywhere) + len(megatron)] == megatron


def test_the_mapped_fields_are_those_of_the_code():
    section = TEXT.partition("## What a recipe sets in verl")[2].partition("\n\nEverything else")[0]
    assert dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", section, re.M)) == MAPPED


def test_fields_that_the_page_names_exist():
    sections = {name.partition(".")[0] for name in FIELDS if "." in name}
    named = set(re.findall(r"`(\w+\.\w+)(?:=[^`]*)?`", TEXT))
    metrics = set(re.findall(r"`([\w/@]+)`", (ROOT / "docs/metrics.md").read_text()))
    fields = {name for name in named if name.partition(".")[0] in sections}
    assert {"optimizer.tokens_per_microbatch", "prompts.max_tokens", "grading.workers"} <= fields
    assert fields <= set(FIELDS)
    watched = TEXT.partition("## What to watch")[2].partition("## What breaks")[0]
    keys = {key for row in re.findall(r"^\| (`.*?) \|", watched, re.M) for key in re.findall(r"`([\w/]+)`", row)}
    assert len(keys) > 10
    assert keys <= metrics


# ---------------------------------------------------------------------- sizes


def test_the_tables_are_what_the_benchmark_computes(memory):
    for name, rows in memory.TABLES.items():
        assert fill(TEXT, name, rows()) == TEXT, "python benchmarks/cluster_memory.py docs/cluster.md"


def test_weights_are_counted_as_the_model_has_them(memory):
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    for tied in (False, True):
        config = Qwen2Config(
            hidden_size=4,
            num_hidden_layers=2,
            intermediate_size=8,
            num_attention_heads=2,
            num_key_value_heads=1,
            vocab_size=10,
            tie_word_embeddings=tied,
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        counted = sum({id(weight): weight.numel() for weight in model.parameters()}.values())
        assert memory.Shape(4, 2, 8, 2, 1, 2, 10, tied).weights == counted


def test_memory_by_hand(memory):
    """Queries are 4 wide, keys 2. A layer: 20 + 10 + 10 + 16 attention, 96 MLP, 8 norms; the model: 2 layers, 2 x 40, 4."""
    shape = memory.Shape(4, 2, 8, 2, 1, 2, 10, False)
    assert (shape.layer, shape.weights) == (160, 404)
    job = memory.Job(shape, 4, 1, 0.5, 3, 16, True, True, True, 1)
    terms = [round(size * memory.GIB) for name, size in memory.update(job).items() if name != "rest"]
    # 16 x 404 / 4; 10 x 160 + 8 x 40; 2 bytes x 3 tokens x 4 wide x 2 layers; 4 x 3 x (24 + 8 + 4 + 32); 4 x 3 x 10
    assert terms == [1616, 1920, 48, 816, 120]
    assert round(memory.sampling(job)["weights and AdamW of the trainer"] * memory.GIB) == 12 * 404 / 4
    assert memory.checkpoint(job) * memory.GIB == 12 * 404


def test_a_servers_cache_by_hand(memory):
    """7B: 39.5 - 3 - 14.2 GiB are left; a token takes 2 x 2 bytes x 28 layers x 4 heads x 128 = 56 KiB: 417,000 tokens."""
    job = memory.job_of(read_recipe(TrainRecipe, ROOT / RECIPE))
    assert memory.cache(job) == pytest.approx(22.3, abs=0.05)
    assert job.shape.cached == 56 * 1024
    assert memory.rollouts_at_once(job) == 102


@pytest.mark.parametrize(
    ("override", "term"),
    [
        ("verl.trainer.nnodes=1", "gpus"),
        ("verl={actor_rollout_ref.actor: {fsdp_config.param_offload: true}}", "params_stay"),
        ("optimizer.tokens_per_microbatch=8192", "tokens"),
        ("verl.+actor_rollout_ref.rollout.gpu_memory_utilization=0.7", "share"),
        ("loss={advantages: gae, filter_uniform: false}", "models"),
    ],
)
def test_what_a_recipe_says_of_memory_is_read_however_it_is_written(memory, override, term):
    before, after = (memory.job_of(read_recipe(TrainRecipe, ROOT / RECIPE, each)) for each in ([], [override]))
    assert getattr(before, term) != getattr(after, term)


def test_a_model_of_another_shape_is_read_from_its_folder(memory, tmp_path):
    (tmp_path / "config.json").write_text(
        '{"hidden_size": 4, "num_hidden_layers": 2, "intermediate_size": 8, "num_attention_heads": 2, '
        '"num_key_value_heads": 1, "vocab_size": 10}'
    )
    assert memory.shape_of(str(tmp_path)) == memory.Shape(4, 2, 8, 2, 1, 2, 10, False)
    assert memory.shape_of("Qwen/Qwen2.5-Math-7B-Instruct") == memory.QWEN25["7"]
    with pytest.raises(ValueError, match="give a model folder"):
        memory.shape_of("google/gemma-9b")
