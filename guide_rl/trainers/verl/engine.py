"""The engine for a Ray cluster: verl's workers and rollout servers under Guide's own loop.

Guide is the controller: its loop (`trainers.trainer`) runs in this process, decides what is sampled, grades it, and calls
verl's worker groups for what needs accelerators: rollouts (`sampler`), log-probs and updates (`update`, `loss`), weight sync,
checkpoints. So every engine has the same algorithm, and nothing of verl's own loop, rewards or advantages is used.
"""

import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from guide_rl.config import TrainRecipe
from guide_rl.policy import naming_model_path, quiet_transformers
from guide_rl.prompts import PromptIds, Prompts, load_tokenizer
from guide_rl.run_folder import RunFolder
from guide_rl.samplers.causal_lm import check_length
from guide_rl.samplers.rollout_text import RolloutText
from guide_rl.trainers.engine import EngineLost, Updated
from guide_rl.trainers.verl.config import limit_length, verl_config
from guide_rl.trainers.verl.private import Workers, check_config, check_shards, check_version, merge
from guide_rl.trainers.verl.sampler import Loop, ServerSampler
from guide_rl.trainers.verl.update import WorkersUpdate
from guide_rl.types import Group

CPUS_A_RANK = 3
"""What verl's placement groups ask for beside each accelerator."""


class VerlEngine:
    """Samples and updates on a cluster; see `trainers.engine.Engine`.

    Raises:
        ValueError: the recipe asks for what verl cannot do, or verl is not there.
    """

    def __init__(self, recipe: TrainRecipe, run: RunFolder, checkpoint: Path | None) -> None:
        from transformers import AutoConfig, GenerationConfig

        check_version()
        os.environ.setdefault("VERL_LOGGING_LEVEL", "WARN")
        warnings.filterwarnings("ignore", message=".* engine is not available", category=UserWarning)
        self.recipe, self.run, self.checkpoint = recipe, run, checkpoint
        self.config = verl_config(recipe)
        path, trust = os.path.expanduser(recipe.model.path), recipe.model.trust_remote_code
        with quiet_transformers(), naming_model_path(path):
            self.tokenizer = load_tokenizer(path, trust_remote_code=trust)
            self._model_config = AutoConfig.from_pretrained(path, trust_remote_code=trust)
            try:
                self._generation = GenerationConfig.from_pretrained(path).eos_token_id
            except OSError:  # it has none of its own
                self._generation = GenerationConfig.from_model_config(self._model_config).eos_token_id
        limit_length(self.config, self._model_config)
        self.prompt_ids = PromptIds(Prompts(self.tokenizer, recipe.prompts))
        self._step = 0
        self._own_ray = False
        self._loop: Loop | None = None

    def check_length(self, prompt_tokens: int, max_tokens: int, *, knob: str = "sampling.max_tokens") -> None:
        """As the function of that name, for this model."""
        check_length(self._model_config.get_text_config(), prompt_tokens, max_tokens, knob=knob)

    def start(self) -> None:
        """Connect to Ray (or start it here), start the workers and servers, and load the checkpoint."""
        check_config(self.config)
        if self.checkpoint is not None:
            check_shards(self.checkpoint, self._ranks, critic=self.recipe.loss.advantages == "gae")
        with self._explained("while starting"):
            self._connect()
            self._check_resources()
            self.workers = Workers(
                self.config,
                temperature=self.recipe.sampling.temperature,
                idle_token=self.tokenizer.pad_token_id or 0,
                epochs=self.recipe.optimizer.epochs,
            )
            self._update = WorkersUpdate(self.recipe, self.workers, self.prompt_ids)
            self._loop = Loop()
            if self.checkpoint is not None:
                self.workers.load(self.checkpoint)
                state = json.loads((self.checkpoint / "engine.json").read_text(encoding="utf-8"))
                self._step, self._update.updates = state["step"], state["updates"]
            self.workers.send_weights(self._step)

    def sampler(self, temperature: float, max_tokens: int, *, top_p: float = 1.0, top_k: int = 0) -> ServerSampler:
        """A sampler over the rollout servers."""
        assert self._loop is not None
        text = RolloutText(self.tokenizer, eos_token_ids=self._eos, stop=self.recipe.sampling.stop)
        return ServerSampler(
            self.workers.client,
            self._loop,
            text,
            eos_token_ids=self._eos,
            temperature=temperature,
            max_tokens=max_tokens,
            top_p=top_p,
            top_k=top_k,
            seeded=bool(self.config.actor_rollout_ref.rollout.full_determinism),
            explained=lambda error: self._lost(error, "while sampling"),
        )

    def sampling(self) -> contextlib.AbstractContextManager[None]:
        """Nothing: the servers are awake."""
        return contextlib.nullcontext()

    def update(self, groups: Sequence[Group], step: int) -> Updated:
        """Let the servers sleep, move the policy, and wake them with its new weights."""
        with self._explained(f"in the update of step {step}"):
            self.workers.sleep()
            started = time.perf_counter()
            updated = self._update(groups, step)
            trained = time.perf_counter()
            self._step = step
            self.workers.send_weights(step)
        timings = {"seconds/workers": trained - started, "seconds/weights": time.perf_counter() - trained}
        return replace(updated, timings=timings)

    def save(self, folder: Path) -> None:
        """verl's own checkpoints, of policy and critic, and engine.json."""
        with self._explained("while saving"):
            self.workers.save(folder.resolve(), self._step)
        state = {"step": self._step, "updates": self._update.updates}
        (folder / "engine.json").write_text(json.dumps(state), encoding="utf-8")

    def export(self, folder: Path) -> None:
        """The policy of the newest checkpoint, merged."""
        newest = self.run.latest_checkpoint()
        assert newest is not None
        merge(newest / "actor", folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers, and Ray where it was started here."""
        import ray

        if self._loop is not None:
            self._loop.close()
        if ray.is_initialized() and self._own_ray:
            ray.shutdown()

    # ------------------------------------------------------------------ Ray

    @property
    def _eos(self) -> set[int]:
        """Tokens that end a rollout: what the model's generation config says, and the tokenizer."""
        said = self._generation
        found = {*said} if isinstance(said, list | tuple) else {said}
        return {token for token in found | {self.tokenizer.eos_token_id} if token is not None}

    @property
    def _ranks(self) -> int:
        """How many processes hold the policy."""
        return int(self.config.trainer.nnodes * self.config.trainer.n_gpus_per_node)

    def _connect(self) -> None:
        """Connect to the cluster that the environment or verl.ray_kwargs.ray_init names, or start one on this machine."""
        import ray
        from omegaconf import OmegaConf
        from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

        if ray.is_initialized():
            return
        options: Any = OmegaConf.to_container(self.config.ray_kwargs.get("ray_init", {}), resolve=True)
        given = options.pop("runtime_env", {})
        environment = OmegaConf.to_container(OmegaConf.merge(get_ppo_ray_runtime_env(self.config), given))
        ray.init(**{"log_to_driver": False, **options}, runtime_env=environment)
        self._own_ray = True

    def _check_resources(self) -> None:
        """Raise ValueError where the cluster is smaller than what verl will ask for: it would wait without a word."""
        import ray

        trainer, there, ranks = self.config.trainer, ray.cluster_resources(), self._ranks
        for kind, needed in (("NPU" if "NPU" in there else "GPU", ranks), ("CPU", CPUS_A_RANK * ranks)):
            if there.get(kind, 0) < needed:
                raise ValueError(
                    f"the Ray cluster has {there.get(kind, 0):.0f} {kind}s, and verl asks for {needed}: "
                    f"verl.trainer.nnodes ({trainer.nnodes}) x verl.trainer.n_gpus_per_node ({trainer.n_gpus_per_node}) ranks, "
                    f"each with {CPUS_A_RANK} CPUs; lower them, or start Ray on more nodes (docs/cluster.md)"
                )

    @contextlib.contextmanager
    def _explained(self, when: str) -> Iterator[None]:
        """Turn Ray's errors into EngineLost, or MemoryError."""
        import ray.exceptions

        try:
            yield
        except ray.exceptions.RayError as error:
            raise self._lost(error, when) from error

    def _lost(self, error: Exception, when: str) -> Exception:
        """What a worker's or a server's error means for the run."""
        import ray.exceptions

        if not isinstance(error, ray.exceptions.RayError):
            return error
        text = str(error).strip()
        if "out of memory" in text.lower():
            return MemoryError(
                f"out of memory {when}: lower optimizer.tokens_per_microbatch (update), "
                f"verl.actor_rollout_ref.rollout.gpu_memory_utilization or sampling.batch_size (sampling). {text[-1500:]}"
            )
        newest = self.run.latest_checkpoint()
        remedy = (
            f"the last whole checkpoint is {newest}: continue with `guide train --resume {self.run.path}`"
            if newest
            else "there is no checkpoint yet: start again"
        )
        return EngineLost(
            f"a process of the cluster failed {when}; {remedy}. Its log is in Ray's session folder (logs/worker-*.err, "
            f"of a rollout server worker-*.out). {text[-2000:]}"
        )
