"""Every call of verl that an engine of ours makes, once: `python -m verl_cpu.round_trip FOLDER [KEY=VALUE ...]`.

Writes FOLDER/report.json; the keys are verl's.

Two ranks with actor, critic and rollout servers: sample, score, update, send weights, sample again, save, load.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import ray
import torch
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from tiny_models import tiny_model, tiny_tokenizer
from torch import Tensor
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from verl_cpu.settings import settings

RANKS = 2
TEMPERATURE = 0.7
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13, 14], [15, 16, 17, 18]]
SAMPLING = {"temperature": TEMPERATURE, "top_p": 1.0, "top_k": -1, "max_tokens": 12, "logprobs": True}


class Workers(PPOTrainerSync):
    """verl's worker groups and servers, without its data, replay buffer and loop."""

    def _build_replay_buffer(self) -> None:
        return None

    def _init_dataloader(self) -> None:
        pass

    def _load_checkpoint(self) -> None:
        pass


def likelihood_loss(model_output: Mapping[str, Any], data: TensorDict, dp_group: Any = None) -> tuple[Tensor, dict]:
    """Minus the log-prob of the responses' tokens, over the mini-batch's tokens on all ranks."""
    logprobs = response_from_nested(model_output["log_probs"], data["response_mask"]).values()
    loss = -(logprobs * data["response_mask"].values()).sum() / data["batch_num_tokens"] * data["dp_size"]
    return loss, {"rows": [data["row"].tolist()]}


def square_loss(model_output: Mapping[str, Any], data: TensorDict, dp_group: Any = None) -> tuple[Tensor, dict]:
    """The squared distance of the values from 1."""
    values = response_from_nested(model_output["values"], data["response_mask"]).values()
    return ((values - 1) ** 2).sum() / data["batch_num_tokens"] * data["dp_size"], {"values": values.mean().item()}


def jagged(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.long) -> Tensor:
    """Rows of different lengths as one nested tensor."""
    return torch.nested.as_nested_tensor([torch.tensor(row, dtype=dtype) for row in rows], layout=torch.jagged)


def batch_of(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], **settings: Any) -> TensorDict:
    """What verl's workers take: one row a rollout, and settings of the call."""
    both = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    masks = [[0] * len(prompt) + [1] * len(response) for prompt, response in zip(prompts, responses, strict=True)]
    return tu.get_tensordict(
        {
            "input_ids": jagged(both),
            "position_ids": jagged([range(len(row)) for row in both]),
            "loss_mask": jagged(masks),
            "prompts": jagged(prompts),
            "responses": jagged(responses),
            "response_mask": jagged([[1] * len(response) for response in responses]),
            "row": torch.arange(len(responses)),
        },
        settings,
    )


def config_of(model: Path, overrides: Sequence[str]) -> DictConfig:
    """verl's config for a CPU run with a critic and a reference policy."""
    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        config = hydra.compose("ppo_trainer")
    own = {
        "actor_rollout_ref.model.path": str(model),
        "critic.model.path": str(model),
        "critic.enable": True,
        "actor_rollout_ref.actor.use_kl_loss": True,
        "actor_rollout_ref.actor.use_dynamic_bsz": True,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 64,
        "actor_rollout_ref.actor.optim.lr": 1e-3,
        "data.max_prompt_length": 64,
        "data.max_response_length": 16,
    }
    for key, value in (settings(RANKS) | own).items():
        OmegaConf.update(config, key, value, force_add=True)
    return OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))


async def sample(client: Any, prompts: Sequence[Sequence[int]], **changes: Any) -> list[Any]:
    """One TokenOutput a prompt, all asked for at once; prompt i has seed i."""
    return await asyncio.gather(
        *(
            client.generate(f"{i}", prompt_ids=prompt, sampling_params=SAMPLING | {"seed": i} | changes)
            for i, prompt in enumerate(prompts)
        )
    )


def largest_difference(call: Callable[[TensorDict], TensorDict], outputs: Sequence[Any]) -> float:
    """Between the sampler's log-probs and those of a forward pass, over all tokens."""
    responses = [output.token_ids for output in outputs]
    batch = batch_of(PROMPTS, responses, temperature=TEMPERATURE, calculate_entropy=True, compute_loss=False)
    trainer = response_from_nested(call(batch)["log_probs"], batch["response_mask"]).values()
    return (trainer - torch.tensor([x for output in outputs for x in output.log_probs])).abs().max().item()


def round_trip(workers: Workers, folder: Path) -> dict[str, Any]:
    """Make the calls and tell what came back."""
    report: dict[str, Any] = {}
    actor, critic, manager = workers.actor_rollout_wg, workers.critic_wg, workers.checkpoint_manager
    client = workers.get_llm_client()
    manager.update_weights(0)
    first = asyncio.run(sample(client, PROMPTS))
    alone = asyncio.run(sample(client, PROMPTS[:1]))
    greedy = [asyncio.run(sample(client, PROMPTS, temperature=0.0, seed=seed)) for seed in (0, 1)]
    report["tokens"] = [output.token_ids for output in first]
    report["tokens_alone"] = alone[0].token_ids
    report["greedy"] = [[output.token_ids for output in outputs] for outputs in greedy]
    manager.sleep_replicas()
    try:
        asyncio.run(sample(client, PROMPTS))
    except RuntimeError as error:
        report["asleep"] = str(error)

    update = {"temperature": TEMPERATURE, "mini_batch_size": 2, "epochs": 1}
    batch = batch_of(PROMPTS, report["tokens"], **update)
    report["before"] = largest_difference(actor.compute_log_prob, first)
    actor.set_loss_fn(likelihood_loss)
    report["actor"] = tu.get(actor.update_actor(batch), "metrics")
    report["moved"] = largest_difference(actor.compute_log_prob, first)
    manager.update_weights(1)
    second = asyncio.run(sample(client, PROMPTS))
    report["steps"] = [outputs[0].extra_fields["global_steps"] for outputs in (first, second)]
    report["after"] = largest_difference(actor.compute_log_prob, second)

    report["reference"] = largest_difference(workers.ref_policy_wg.compute_ref_log_prob, first)

    critic.set_loss_fn(square_loss)
    scoring = batch_of(PROMPTS, report["tokens"], temperature=TEMPERATURE, compute_loss=False)
    values = critic.infer_batch(scoring).get()["values"]
    report["values"] = [len(row) for row in values.unbind()]
    report["critic"] = tu.get(critic.train_mini_batch(batch).get(), "metrics")
    later = critic.infer_batch(scoring).get()["values"]
    report["values_moved"] = (later.values() - values.values()).abs().max().item()

    actor.save_checkpoint(str(folder / "actor"), global_step=1)
    critic.save_checkpoint(str(folder / "critic"), global_step=1)
    actor.update_actor(batch)
    report["unsaved"] = largest_difference(actor.compute_log_prob, second)
    actor.load_checkpoint(str(folder / "actor"))
    critic.load_checkpoint(str(folder / "critic"))
    report["loaded"] = largest_difference(actor.compute_log_prob, second)
    return report


def main(folder: Path, overrides: Sequence[str]) -> None:
    """Start Ray and the workers, make the round trip, write the report, shut everything down."""
    model = folder / "model"
    tiny_model("qwen2").save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    config = config_of(model, overrides)
    ray.init(**OmegaConf.to_container(config.ray_kwargs.ray_init) | {"runtime_env": get_ppo_ray_runtime_env(config)})
    try:
        start = time.perf_counter()
        workers = Workers(config)
        workers._setup()
        set_up = time.perf_counter()
        report = round_trip(workers, folder)
        report["seconds"] = {"setup": set_up - start, "calls": time.perf_counter() - set_up}
    finally:
        ray.shutdown()
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
