"""Loading and exporting: clear errors for a model that is not there, the right tokenizer, equal numbers, the best step."""

import pytest
import torch
from tiny_models import tiny_tokenizer
from toy_run import trainer, write_inputs

from guide_rl.config import LoraConfig, ModelConfig
from guide_rl.policy import export, load_policy
from guide_rl.run_folder import RunFolder
from guide_rl.trainers.export import export_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    write_inputs(folder)
    return folder


def load(path, **changes):
    return load_policy(ModelConfig(path=str(path), device="cpu", **changes), device=CPU, seed=0)


# ---------------------------------------------------------------------- model.path


@pytest.mark.parametrize("path", ["/no/such", "./no", "../no", "~/no-such-model", "no/such/folder"])
def test_a_folder_that_is_not_there_is_said_at_once_without_asking_the_hub(path, monkeypatch):
    monkeypatch.setattr("transformers.utils.cached_file", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(FileNotFoundError, match=r"model\.path .*no-?.*: no such model folder"):
        load(path)


def test_a_run_folder_names_its_model_or_newest_checkpoint(folder, tmp_path):
    run = RunFolder.create(tmp_path / "run", "a: 1\n")
    with pytest.raises(FileNotFoundError, match="it has no config") as error:
        load(run.path)
    assert "give" not in str(error.value)
    checkpoint = run.save_checkpoint(3, lambda partial: None)
    with pytest.raises(FileNotFoundError, match=f"it is a run, so give model.path={checkpoint}"):
        load(run.path)
    (run.path / "model").symlink_to(folder / "model")
    with pytest.raises(FileNotFoundError, match=f"it is a run, so give model.path={run.path}/model"):
        load(run.path)


def test_a_name_that_the_hub_does_not_give_is_an_error_that_names_the_field(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"^model\.path guide/no-such-model: .*Check the name, the network") as error:
        load("guide/no-such-model")
    assert "\n" not in str(error.value)


def test_a_folder_with_a_broken_model_is_named(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "model/config.json").read_bytes())
    with pytest.raises(OSError, match=rf"^model\.path {tmp_path}: .*model\.safetensors"):
        load(tmp_path)


def test_a_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert load("~/model").tokenizer.eos_token == "<|eos|>"


# ---------------------------------------------------------------------- the tokenizer


def test_a_general_tokenizer_is_taken_as_it_is_whatever_the_model_type(folder):
    text = "a b  c\n1+1=2 é"
    assert load(folder / "model").tokenizer(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]


def test_a_tokenizer_keeps_its_tokens_over_export(folder, tmp_path):
    export_checkpoint(folder / "model", tmp_path / "exported")
    assert load(tmp_path / "exported").tokenizer.decode(tiny_tokenizer()("a b")["input_ids"]) == "a b"


# ---------------------------------------------------------------------- LoRA in bfloat16


def with_lora(folder, dtype: str):
    policy = load(folder / "model", dtype=dtype, lora=LoraConfig(rank=4))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
    return policy


def test_frozen_matrices_in_bfloat16_change_no_number(folder):
    outcomes = []
    for dtype in ("float32", "bfloat16"):
        policy = with_lora(folder, dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = policy.model(torch.arange(6, 30)[None]).logits
        logits.float().logsumexp(-1).sum().backward()
        outcomes.append((policy, logits, [w.grad for w in policy.model.parameters() if w.requires_grad]))
    (_, logits, gradients), (stored, same_logits, same_gradients) = outcomes
    assert torch.equal(logits, same_logits)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same_gradients, strict=True))
    dtypes = {name: weight.dtype for name, weight in stored.model.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if "base_layer" in name} == {torch.bfloat16}
    assert {dtype for name, dtype in dtypes.items() if "base_layer" not in name} == {torch.float32}


def test_frozen_matrices_in_bfloat16_are_merged_in_float32(folder, tmp_path):
    from transformers import AutoModelForCausalLM

    policy = with_lora(folder, "bfloat16")
    export(policy.model, policy.tokenizer, tmp_path / "exported")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    layer = policy.causal.model.layers[0].mlp.up_proj
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merged = exported.model.layers[0].mlp.up_proj.weight
    assert merged.dtype == torch.float32
    torch.testing.assert_close(merged, layer.base_layer.weight.float() + update, atol=1e-6, rtol=1e-6)
    assert layer.base_layer.weight.dtype == torch.bfloat16


# ---------------------------------------------------------------------- the best checkpoint


def evaluated_run(folder, name: str, best: int | None) -> RunFolder:
    """Four steps, evaluated at each; everything is right at step `best`, nothing at the others (None: no evaluation)."""
    every = "evaluation.every=0" if best is None else "evaluation.every=1"
    settings = ("steps=4", "checkpoints.every=1", "checkpoints.keep_last=1", every, f"run={folder}/{name}")
    made = trainer(
        folder,
        *settings,
        f"problems.evaluation={folder}/train.jsonl",
        correct=lambda problem, rollout: made.step_done == best,
    )
    made.fit()
    return made.run


def test_the_best_checkpoint_is_exported(folder, tmp_path):
    run = evaluated_run(folder, "best", 2)
    export_checkpoint(run.path, tmp_path / "best", best=True)
    export_checkpoint(run.path, tmp_path / "newest")
    for name, step in (("best", 2), ("newest", 4)):
        saved = (run.checkpoints / f"step-{step:06d}/model.safetensors").read_bytes()
        assert (tmp_path / name / "model.safetensors").read_bytes() == saved


@pytest.mark.parametrize(
    ("best", "message"), [(0, "best before the first step"), (None, "nothing was evaluated")], ids=["start", "never"]
)
def test_without_a_best_checkpoint_its_export_says_why(folder, tmp_path, best, message):
    run = evaluated_run(folder, f"best-{best}", best)
    with pytest.raises(ValueError, match=message):
        export_checkpoint(run.path, tmp_path / "best", best=True)
    assert not (tmp_path / "best").exists()


def test_what_holds_no_checkpoint_is_not_exported(folder, tmp_path):
    empty = RunFolder.create(tmp_path / "empty", "a: 1\n")
    for source in (empty.path, tmp_path):
        with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
            export_checkpoint(source, tmp_path / "out")
    with pytest.raises(FileExistsError, match="holds something already"):
        export_checkpoint(folder / "model", empty.path)
