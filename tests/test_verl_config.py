"""The recipe as verl's configuration: every field has a fate, verl accepts the result, and its learning rates are ours."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from guide_rl.cli import main
from guide_rl.config import TrainRecipe
from guide_rl.recipes import fields_of, read_recipe
from guide_rl.trainers.schedule import learning_rate
from guide_rl.trainers.verl.config import derived, limit_length, verl_config
from guide_rl.trainers.verl.fields import MAPPED, MEGATRON_REFUSALS, OURS, OWN_KEYS, REFUSALS, refused
from guide_rl.trainers.verl.private import check_config

ROOT = Path(__file__).parent.parent
PAPER = [path for path in sorted((ROOT / "recipes/paper").glob("*.yaml")) if not path.stem.startswith("sft")]
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("model: {path: m}\nproblems: {train: p.jsonl}\nengine: verl\n")
    return path


@pytest.fixture
def verl():
    """verl, which warns of much when it is imported."""
    return pytest.importorskip("verl", reason="verl is not installed: pip install 'guide-rl[verl]'")


def at(config, key):
    from omegaconf import OmegaConf

    return OmegaConf.select(config, key, throw_on_missing=True)


def config_of(path, *overrides):
    return verl_config(read_recipe(TrainRecipe, path, overrides))


# ---------------------------------------------------------------------- without verl


def test_every_field_of_a_recipe_is_mapped_ours_or_refused():
    sections = {name for name, hint in fields_of(TrainRecipe).items() if dataclasses.is_dataclass(hint)}
    fields = {name for name in fields_of(TrainRecipe) if name not in sections and not name.startswith("model.lora.")}
    known = set(MAPPED) | OURS | set(REFUSALS)
    assert fields - known == set(), "say in trainers/verl/config.py what engine verl makes of these fields"
    assert known - fields == set(), "these are fields no longer"
    assert not set(MAPPED) & OURS


REFUSED = {
    "verl": ("verl.model_engine=veomni", "set verl.model_engine to one of them"),
    "model.device": ("model.device=cpu", "engine to local"),
    "model.lora": ("model.lora.rank=4", "engine to local"),
    "loss.guided_ratio": ("loss.guided_ratio=in_context", "set it to sampling"),
    "loss.reference_every": ("loss.reference_every=3 loss.beta=0.1", "leave it null"),
    "critic.warmup_steps": (
        "loss.advantages=gae loss.filter_uniform=false critic.warmup_steps=2 optimizer.warmup_steps=3",
        "optimizer.warmup_steps to 0",
    ),
    "critic.backbone": ("loss.advantages=gae loss.filter_uniform=false critic.backbone=shared", "set it to own"),
    "optimizer.schedule": ("optimizer.schedule=linear", "constant or cosine"),
    "optimizer.warmup_steps": ("optimizer.schedule=cosine optimizer.warmup_steps=3", "set it to 0"),
}
MEGATRON = {
    "model.dtype": ("model.dtype=float32", "auto"),
    "optimizer.schedule": ("optimizer.schedule=cosine", "constant"),
    "optimizer.warmup_steps": ("optimizer.warmup_steps=2", "0"),
    "optimizer.betas": ("optimizer.betas=[0.9,0.95]", "leave them"),
}


def test_every_refusal_is_tested():
    assert set(REFUSED) == set(REFUSALS)
    assert set(MEGATRON) == set(MEGATRON_REFUSALS)


@pytest.mark.parametrize(("field", "row"), REFUSED.items())
def test_what_verl_cannot_honour_stops_the_command_with_the_field_and_the_remedy(small, capsys, field, row):
    override, remedy = row
    with pytest.raises(SystemExit) as stop:
        main(["train", str(small), *override.split()])
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert f"{field} " in message
    assert remedy in message


@pytest.mark.parametrize(("field", "row"), MEGATRON.items())
def test_what_is_carried_over_to_fsdp_only_is_refused_for_megatron(small, field, row):
    override, remedy = row
    assert refused(read_recipe(TrainRecipe, small, override.split())) == []
    (error,) = refused(read_recipe(TrainRecipe, small, [*override.split(), "verl.model_engine=megatron"]))
    assert error.startswith(field)
    assert remedy in error


def test_all_that_a_refused_recipe_asks_for_is_named_at_once(small):
    errors = refused(read_recipe(TrainRecipe, small, ["model.device=cpu", "optimizer.schedule=linear"]))
    assert [error.split()[0] for error in errors] == ["model.device", "optimizer.schedule"]


def test_the_resolved_recipe_of_the_local_engine_is_printed_as_a_recipe(tmp_path, capsys):
    (tmp_path / "local.yaml").write_text("model: {path: m}\nproblems: {train: p.jsonl}\n")
    main(["train", str(tmp_path / "local.yaml"), "--print-config", "loss.beta=0.25"])
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out)
    recipe = read_recipe(TrainRecipe, tmp_path / "again.yaml")
    assert recipe == read_recipe(TrainRecipe, tmp_path / "local.yaml", ["loss.beta=0.25"])


def test_workers_are_told_the_whole_path_of_a_model_folder(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/mine").mkdir(parents=True)
    for path, told in (("models/mine", f"{tmp_path}/models/mine"), ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B")):
        keys = derived(read_recipe(TrainRecipe, small, [f"model.path={path}"]))
        assert {keys["actor_rollout_ref.model.path"], keys["critic.model.path"]} == {told}


# ---------------------------------------------------------------------- with verl

with_verl = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("verl")]


def needs_verl(test):
    for mark in with_verl:
        test = mark(test)
    return test


FSDP = f"{ACTOR}.fsdp_config"
PRECISE = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
MAPPING = [
    ("seed", "seed=7", {f"{ROLLOUT}.seed": 7, f"{FSDP}.seed": 7, "critic.fsdp.seed": 7}),
    ("steps", "steps=9", {"trainer.total_training_steps": 9, f"{ACTOR}.optim.total_training_steps": 9}),
    (
        "problems_per_step",
        "problems_per_step=48",
        {"data.train_batch_size": 48, f"{ACTOR}.ppo_mini_batch_size": 48, "critic.ppo_mini_batch_size": 48},
    ),
    ("model.path", "model.path=x/y", {"actor_rollout_ref.model.path": "x/y", "critic.model.path": "x/y"}),
    (
        "model.dtype",
        "model.dtype=float32",
        {
            f"{ROLLOUT}.dtype": "float32",
            f"{FSDP}.mixed_precision": PRECISE,
            "critic.fsdp.mixed_precision": PRECISE,
            "actor_rollout_ref.ref.fsdp_config.mixed_precision": PRECISE,
        },
    ),
    (
        "model.gradient_checkpointing",
        "model.gradient_checkpointing=true",
        {
            "actor_rollout_ref.model.enable_gradient_checkpointing": True,
            "critic.model.enable_gradient_checkpointing": True,
        },
    ),
    (
        "model.trust_remote_code",
        "model.trust_remote_code=true",
        {"actor_rollout_ref.model.trust_remote_code": True, "critic.model.trust_remote_code": True},
    ),
    (
        "prompts.max_tokens",
        "prompts.max_tokens=100",
        {f"{ROLLOUT}.prompt_length": 100, f"{ROLLOUT}.max_model_len": 3172},
    ),
    ("sampling.k", "sampling.k=5", {f"{ROLLOUT}.n": 5}),
    ("sampling.temperature", "sampling.temperature=0.7", {f"{ROLLOUT}.temperature": 0.7}),
    (
        "sampling.max_tokens",
        "sampling.max_tokens=200",
        {f"{ROLLOUT}.response_length": 200, f"{ROLLOUT}.max_model_len": 1224},
    ),
    ("sampling.stop", 'sampling.stop=["##"]', {f"{ROLLOUT}.skip_tokenizer_init": False}),
    ("sampling.batch_size", "sampling.batch_size=17", {f"{ROLLOUT}.max_num_seqs": 17}),
    (
        "loss.advantages",
        "loss.advantages=gae loss.filter_uniform=false",
        {"algorithm.adv_estimator": "gae", "critic.enable": True},
    ),
    ("loss.beta", "loss.beta=0.3", {f"{ACTOR}.use_kl_loss": True, f"{ACTOR}.kl_loss_coef": 0.3}),
    ("loss.entropy_coef", "loss.entropy_coef=0.2", {f"{ACTOR}.entropy_coeff": 0.2, f"{ACTOR}.calculate_entropy": True}),
    ("critic.learning_rate", "critic.learning_rate=3e-5", {"critic.optim.lr": 3e-5}),
    ("critic.clip", "critic.clip=null", {"critic.cliprange_value": float("inf")}),
    ("optimizer.learning_rate", "optimizer.learning_rate=3e-6", {f"{ACTOR}.optim.lr": 3e-6}),
    ("optimizer.schedule", "optimizer.schedule=cosine", {f"{ACTOR}.optim.lr_scheduler_type": "cosine"}),
    ("optimizer.warmup_steps", "optimizer.warmup_steps=4", {f"{ACTOR}.optim.lr_warmup_steps": 4}),
    (
        "optimizer.weight_decay",
        "optimizer.weight_decay=0.1",
        {f"{ACTOR}.optim.weight_decay": 0.1, "critic.optim.weight_decay": 0.1},
    ),
    (
        "optimizer.betas",
        "optimizer.betas=[0.8,0.9]",
        {f"{ACTOR}.optim.betas": [0.8, 0.9], "critic.optim.betas": [0.8, 0.9]},
    ),
    (
        "optimizer.max_grad_norm",
        "optimizer.max_grad_norm=0.5",
        {f"{ACTOR}.optim.clip_grad": 0.5, "critic.optim.clip_grad": 0.5},
    ),
    ("optimizer.epochs", "optimizer.epochs=3", {f"{ACTOR}.ppo_epochs": 3, "critic.ppo_epochs": 3}),
    (
        "optimizer.problems_per_minibatch",
        "optimizer.problems_per_minibatch=16",
        {f"{ACTOR}.ppo_mini_batch_size": 16, "critic.ppo_mini_batch_size": 16},
    ),
    (
        "optimizer.tokens_per_microbatch",
        "optimizer.tokens_per_microbatch=5000",
        {
            f"{ACTOR}.ppo_max_token_len_per_gpu": 5000,
            f"{ROLLOUT}.log_prob_max_token_len_per_gpu": 5000,
            "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu": 5000,
            "critic.ppo_max_token_len_per_gpu": 5000,
            "critic.ppo_infer_max_token_len_per_gpu": 5000,
            "critic.forward_max_token_len_per_gpu": 5000,
        },
    ),
    (
        "evaluation.max_tokens",
        "evaluation.max_tokens=5000 evaluation.every=1 problems.evaluation=e.jsonl optimizer.tokens_per_microbatch=9000",
        {f"{ROLLOUT}.response_length": 5000, f"{ROLLOUT}.max_model_len": 6024},
    ),
    ("verl", "verl.trainer.nnodes=3", {"trainer.nnodes": 3}),
]


def test_every_mapping_is_tested():
    assert {field for field, _, _ in MAPPING} | {"engine"} == set(MAPPED)


@needs_verl
@pytest.mark.parametrize(("field", "overrides", "keys"), MAPPING, ids=[row[0] for row in MAPPING])
def test_a_field_sets_its_keys_of_verls(small, field, overrides, keys):
    before, after = config_of(small), config_of(small, *overrides.split())
    for key, value in keys.items():
        assert at(after, key) == value
        assert at(before, key) != value or field == "optimizer.schedule"


@needs_verl
def test_what_guide_does_itself_is_off_in_verl(small):
    config = config_of(small)
    assert not config.trainer.val_before_train
    assert not config.transfer_queue.enable
    assert (config.trainer.v1.trainer_mode, config.trainer.resume_mode, config.trainer.save_freq) == (
        "sync",
        "disable",
        -1,
    )
    assert config.actor_rollout_ref.rollout.calculate_log_probs
    for key in (f"{ACTOR}.use_dynamic_bsz", f"{ROLLOUT}.log_prob_use_dynamic_bsz", "critic.use_dynamic_bsz"):
        assert at(config, key) is True
    assert at(config, "actor_rollout_ref.ref.log_prob_use_dynamic_bsz") is True
    assert {at(config, f"{part}.strategy") for part in (ACTOR, "actor_rollout_ref.ref", "critic")} == {"fsdp2"}


SCHEDULES = [
    "optimizer.schedule=constant",
    "optimizer.warmup_steps=1",
    "optimizer.warmup_steps=4",
    "optimizer.schedule=cosine",
]


@needs_verl
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_verls_learning_rate_at_every_step_is_ours(small, schedule, steps):
    import torch
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    recipe = read_recipe(TrainRecipe, small, [f"steps={steps}", schedule, "optimizer.learning_rate=0.5"])
    optim = omega_conf_to_dataclass(verl_config(recipe).actor_rollout_ref.actor.optim)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=optim.lr)
    scheduler = FSDPEngine._build_lr_scheduler(SimpleNamespace(optimizer_config=optim, rank=1), optimizer)
    for step in range(1, steps + 1):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rate(recipe, step), rel=1e-12, abs=1e-15)
        optimizer.step()
        scheduler.step()


@needs_verl
def test_the_users_keys_win_however_they_are_written(small):
    nested = dataclasses.replace(
        read_recipe(TrainRecipe, small),
        verl={"actor_rollout_ref": {"rollout": {"seed": 3, "tensor_model_parallel_size": 4}}, "trainer.device": "cpu"},
    )
    config = verl_config(nested)
    assert (config.actor_rollout_ref.rollout.seed, config.actor_rollout_ref.rollout.tensor_model_parallel_size) == (
        3,
        4,
    )
    assert config.trainer.device == "cpu"
    line = config_of(
        small,
        "verl.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp16",
        "verl.actor_rollout_ref.rollout.engine_kwargs.vllm.max_logprobs=3",
        "verl.+actor_rollout_ref.rollout.custom.a.b=[1,x]",
        "verl.ray_kwargs.ray_init.num_cpus=10",
    )
    assert at(line, f"{FSDP}.mixed_precision") == {
        "param_dtype": "fp16",
        "reduce_dtype": "fp32",
        "buffer_dtype": "fp32",
    }
    assert at(line, f"{ROLLOUT}.engine_kwargs.vllm") == {"max_logprobs": 3}
    assert at(line, f"{ROLLOUT}.engine_kwargs.sglang") == {}
    assert at(line, f"{ROLLOUT}.custom") == {"a": {"b": [1, "x"]}}
    assert line.ray_kwargs.ray_init.num_cpus == 10


@needs_verl
@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("trainer.node", "trainer.nnodes"),
        ("nnodes", "trainer.nnodes"),
        ("rollout.n", "actor_rollout_ref.rollout"),
        ("actor_rollout_ref.rollout.tensor_paralel_size", "actor_rollout_ref.rollout.tensor_model_parallel_size"),
        ("actor_rollout_reff.actor.strategy", "actor_rollout_ref"),
    ],
)
def test_a_key_that_verl_does_not_have_is_named_with_the_nearest(small, key, meant):
    with pytest.raises(ValueError, match=rf"^verl\.{key.split('.')[0]}.*did you mean verl\.{meant}\?"):
        config_of(small, f"verl.{key}=1")
    assert config_of(small, f"verl.+{key}=1")


@needs_verl
@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("trainer.save_freq", "checkpoints.every"),
        ("algorithm.gamma", "the fields of loss and critic"),
        (f"{ROLLOUT}.n", "sampling.k"),
        (f"{ROLLOUT}.top_p", "evaluation.top_p"),
        ("+data.train_files", "problems.train"),
    ],
)
def test_a_key_of_verls_for_what_guide_does_itself_is_refused(small, key, instead):
    with pytest.raises(ValueError, match=f"Guide does this itself, not verl; set {instead}"):
        config_of(small, f"verl.{key}=1")


@needs_verl
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("verl.trainer=5", r"verl\.trainer: verl has a section here, not 5"),
        ("verl.actor_rollout_ref.rollout=[1]", r"verl\.actor_rollout_ref\.rollout: verl has a section here, not \[1\]"),
        ("verl.actor_rollout_ref=null", r"verl\.actor_rollout_ref: verl has a section here, not None"),
        ("verl.trainer.nnodes=two", r"verl\.trainer\.nnodes: verl has a number here, not 'two'"),
        ("verl.trainer.nnodes=true", r"verl\.trainer\.nnodes: verl has a number here, not True"),
        ("verl.trainer.nnodes.deep.er=3", r"verl\.trainer\.nnodes: verl has a number here, not \{'deep'"),
        ("verl.+trainer.nnodes=two", r"verl\.trainer\.nnodes must be a whole number above 0, not 'two'"),
        ("verl.trainer.nnodes=0", r"verl\.trainer\.nnodes must be a whole number above 0, not 0"),
        (f"verl.{ROLLOUT}.tensor_model_parallel_size=3", r"\(8\) must be a multiple of .* \(3: "),
        (f"verl.{ROLLOUT}.full_determinism=maybe", "full_determinism: verl has true or false here, not 'maybe'"),
        (f"verl.{ROLLOUT}.load_format=7", "load_format: verl has text here, not 7"),
        (f"verl.{ACTOR}.checkpoint.save_contents=model", r"checkpoint\.save_contents: Guide does this itself"),
        (f"verl.{ROLLOUT}.ignore_eos=true", "ignore_eos: Guide does this itself"),
        ("verl.trainer.experiment_name=${nothing.there}", "verl: Interpolation key 'nothing.there' not found"),
        ("verl..=1", "a part of this key has no name"),
        ("verl={1: 2}", r"verl\.1: verl has no such key"),
        ("verl.model_engine=null", "another model_engine than dp"),
    ],
)
def test_nonsense_is_an_error_of_a_line_that_names_the_key(small, override, message):
    with pytest.raises(ValueError, match=message) as caught:
        config_of(small, override)
    assert "\n" not in str(caught.value)


@needs_verl
@pytest.mark.parametrize(
    "override",
    [
        f"verl.{ROLLOUT}.gpu_memory_utilization=1",
        f"verl.{ACTOR}.optim.override_optimizer_config={{eps: 1.0e-6}}",
        f"verl.{ACTOR}.ulysses_sequence_parallel_size=2",
        "verl.trainer.experiment_name=null",
        "verl.trainer.device=${oc.env:HOME}",
        f"verl={{{ACTOR}: {{}}}}",
    ],
)
def test_what_may_stand_for_a_default_is_taken(small, override):
    assert at(config_of(small, override), f"{ACTOR}.strategy") == "fsdp2"


@needs_verl
@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"verl.{ACTOR}.use_dynamic_bsz=false", "verl refuses its configuration: .*ppo_micro_batch_size"),
        (f"verl.+{ROLLOUT}.zonk=1", "verl refuses its configuration: .*'zonk'"),
        (f"verl.{ROLLOUT}.name=foo", r"verl\.actor_rollout_ref\.rollout\.name is foo: Unknown"),
    ],
)
def test_what_verl_itself_refuses_is_an_error_before_anything_starts(small, tmp_path, override, message):
    from tiny_models import tiny_model, tiny_tokenizer

    tiny_model("qwen2").save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    with pytest.raises(ValueError, match=message) as caught:
        check_config(config_of(small, f"model.path={tmp_path / 'tiny'}", override))
    assert "\n" not in str(caught.value)


@needs_verl
@pytest.mark.parametrize("key", OWN_KEYS)
def test_keys_that_are_refused_as_guides_are_keys_of_verls(small, key):
    from omegaconf import OmegaConf

    config = config_of(small)
    section, _, name = key.rpartition(".")
    assert name in (OmegaConf.select(config, section) if section else config)


@needs_verl
def test_a_row_longer_than_a_micro_batch_is_refused_unless_gpus_share_it(small):
    with pytest.raises(ValueError, match=r"optimizer.tokens_per_microbatch \(3000\) .* \(4096\)"):
        config_of(small, "optimizer.tokens_per_microbatch=3000")
    assert config_of(small, "optimizer.tokens_per_microbatch=3000", f"verl.{ACTOR}.ulysses_sequence_parallel_size=2")


@needs_verl
def test_the_configuration_that_is_printed_is_the_one_that_is_used(small, capsys):
    main(["train", str(small), "--print-config", "verl.trainer.nnodes=2"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["nnodes"] == 2
    assert printed["actor_rollout_ref"]["rollout"]["response_length"] == 3072
    assert "${" not in str(printed)


@needs_verl
def test_a_dry_run_shows_the_prompts_without_starting_workers_and_says_that_it_estimates_nothing(tmp_path, capsys):
    import ray
    from tiny_models import tiny_model, tiny_tokenizer

    tiny_model("qwen2").save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    problem = {"id": "0", "question": "0 + 1?", "answer": "1", "guidance": "Add.", "grader": "math"}
    (tmp_path / "p.jsonl").write_text(json.dumps(problem) + "\n")
    settings = [f"model.path={tmp_path / 'tiny'}", f"problems.train={tmp_path / 'p.jsonl'}", f"run={tmp_path / 'run'}"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("engine: verl\nproblems_per_step: 1\nsampling: {max_tokens: 20}\n")
    main(["train", str(recipe), "--dry-run", *settings])
    shown = capsys.readouterr().out
    assert "[HINT_START]\nAdd.\n[HINT_END]" in shown
    assert "memory and time are estimated for engine local only" in shown
    assert not ray.is_initialized()
    assert not (tmp_path / "run").exists()


def assert_valid(config):
    """verl's own checks, and its records of the parts that need no model files."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    validate_config(config, need_reference_policy(config), need_critic(config))
    for part in (ACTOR, ROLLOUT, "algorithm", "critic.optim"):
        omega_conf_to_dataclass(at(config, part))


@needs_verl
@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_recipes_are_valid_configurations_of_verl(path):
    config = config_of(path)
    assert_valid(config)
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    assert gpus % config.actor_rollout_ref.rollout.tensor_model_parallel_size == 0
    assert (config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size) == (1024, 512)
    assert config.actor_rollout_ref.rollout.max_model_len == (8192 if path.stem.endswith("8k") else 4096)


@needs_verl
@pytest.mark.parametrize(("positions", "longest"), [(4000, 4000), (5000, 4096)])
def test_servers_take_no_longer_rows_than_the_model(small, positions, longest):
    from transformers import Qwen2Config

    config = config_of(small)
    limit_length(config, Qwen2Config(max_position_embeddings=positions))
    assert config.actor_rollout_ref.rollout.max_model_len == longest


@needs_verl
def test_deterministic_servers_are_vllms(small):
    deterministic = "verl.actor_rollout_ref.rollout.full_determinism=true"
    assert config_of(small, deterministic).actor_rollout_ref.rollout.full_determinism
    with pytest.raises(
        ValueError, match=r"full_determinism is true, which verl's SGLang servers do not have; set it to"
    ):
        config_of(small, deterministic, "verl.actor_rollout_ref.rollout.name=sglang")


@needs_verl
def test_gradient_checkpointing_is_megatrons_recomputation_there(small):
    megatron = ("verl.model_engine=megatron", "model.gradient_checkpointing=true")
    config = config_of(small, *megatron)
    for part in (f"{ACTOR}.megatron", "actor_rollout_ref.ref.megatron", "critic.megatron"):
        assert at(config, f"{part}.override_transformer_config.recompute_granularity") == "full"
    assert config_of(small, megatron[0]).critic.megatron.override_transformer_config.recompute_granularity is None


@needs_verl
@pytest.mark.parametrize(
    "overrides",
    [
        "loss.beta=0.1",
        "verl.model_engine=megatron verl.actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2",
        "verl.actor_rollout_ref.rollout.name=sglang",
        "verl.actor_rollout_ref.actor.strategy=fsdp verl.critic.strategy=fsdp",
    ],
)
def test_other_ways_to_train_are_valid_configurations_of_verl(small, overrides):
    assert_valid(config_of(small, *overrides.split()))


@needs_verl
def test_ppo_is_a_valid_configuration_of_verl_with_a_critic_from_the_same_model(small, tmp_path):
    from tiny_models import tiny_model, tiny_tokenizer
    from verl.trainer.ppo.utils import need_critic
    from verl.utils.config import omega_conf_to_dataclass

    tiny_model("qwen2").save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    attention = "override_config.attn_implementation=sdpa"
    config = config_of(
        small,
        *("loss.advantages=gae", "loss.filter_uniform=false", f"model.path={tmp_path / 'tiny'}"),
        *(f"verl.actor_rollout_ref.model.{attention}", f"verl.critic.model.{attention}"),
    )
    assert need_critic(config)
    assert_valid(config)
    critic = omega_conf_to_dataclass(config.critic)
    assert (critic.engine.strategy, critic.engine.mixed_precision["param_dtype"]) == ("fsdp2", "bf16")
    assert critic.ppo_infer_max_token_len_per_gpu == 16384
    assert omega_conf_to_dataclass(at(config, "actor_rollout_ref.model")).hf_config.vocab_size == len(tiny_tokenizer())
