"""What a CPU run of verl needs on top of verl's defaults. Imports nothing of verl: for the process that starts the run, too."""

import os
from pathlib import Path
from typing import Any

FLOAT32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}


def environment() -> dict[str, str]:
    """Environment variables of every process of the run; to be set before verl is imported and Ray is started."""
    folders = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "verl_cpu.platform,verl_cpu.engines,verl_cpu.rollout",
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def settings(ranks: int) -> dict[str, Any]:
    """verl's keys, dotted, on top of its `ppo_trainer` config; some are not in verl's YAML files and must be added.

    Args:
        ranks: FSDP ranks, each with a rollout server of its own.
    """
    return {
        "trainer.device": "cpu",
        "trainer.nnodes": 1,
        "trainer.n_gpus_per_node": ranks,
        "actor_rollout_ref.actor.strategy": "fsdp2",
        "critic.strategy": "fsdp2",
        "actor_rollout_ref.actor.use_torch_compile": False,
        **{
            f"{engine}.{key}": value
            for engine in ("actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.ref.fsdp_config", "critic.fsdp")
            for key, value in {"use_torch_compile": False, "mixed_precision": FLOAT32}.items()
        },
        **{
            f"{model}.{key}": value
            for model in ("actor_rollout_ref.model", "critic.model")
            for key, value in {
                "override_config.attn_implementation": "sdpa",
                "use_remove_padding": False,
                "enable_gradient_checkpointing": False,
            }.items()
        },
        "actor_rollout_ref.rollout.name": "transformers_cpu",
        "actor_rollout_ref.rollout.dtype": "float32",
        "actor_rollout_ref.rollout.load_format": "auto",
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "reward.num_workers": 0,
        "transfer_queue.enable": False,
        "ray_kwargs.ray_init.num_cpus": 3 * ranks + 2,  # verl's placement groups ask for 3 a rank
        "ray_kwargs.ray_init.num_gpus": ranks,
        "ray_kwargs.ray_init.include_dashboard": False,
    }
