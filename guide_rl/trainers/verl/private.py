"""Everything of verl that is no promised interface and that Guide touches, each with the reason and when it can go.

verl is pinned to `VERSION`: another one may have changed any of this.

`PPOTrainerSync._setup` starts workers and servers, and no more. It can go when verl offers that without a trainer.
`_build_replay_buffer`, `_init_dataloader`, `_load_checkpoint` are called by it, for data files and folders of verl. Go with it.
`_dispatch_info`, `_query_dispatch_info` tell the data-parallel ranks of a worker group. Can go when groups tell it.
`monkey_patch.is_trl_available`: where trl is installed, verl patches a class that trl 1.16 no longer has, and no actor starts.
Can go when verl asks for the class and not for trl.
"""

import contextlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guide_rl.logprobs import Row
from guide_rl.run_folder import as_model
from guide_rl.trainers.verl.rows import batch_of, idle_row, layout, of_rollouts

VERSION = "0.9.1"
SHARD_KINDS = ("model", "optim", "extra_state")
"""What every rank writes with FSDP."""


def check_version() -> None:
    """Raise ValueError where verl is missing or another than the one that this file was written for."""
    try:
        found = version("verl")
    except PackageNotFoundError:
        found = None
    if found != VERSION:
        there = f"verl {found} is" if found else "none is"
        raise ValueError(f"engine verl needs verl {VERSION}, and {there} installed: pip install 'guide-rl[verl]'")


def check_config(config: Any) -> None:
    """Raise ValueError where verl's own checks refuse its configuration, which its workers would only after they were started.

    Args:
        config: verl's own, of `config.verl_config`.
    """
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config
    from verl.workers.rollout.replica import get_rollout_replica_class

    rollout = config.actor_rollout_ref.rollout
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            validate_config(config, need_reference_policy(config), need_critic(config))
            for section in (rollout, config.actor_rollout_ref.model):
                omega_conf_to_dataclass(section)
    except Exception as error:
        raise ValueError(f"verl refuses its configuration: {' '.join(str(error).split())}") from error
    try:
        get_rollout_replica_class(rollout.name)
    except (ImportError, ValueError) as error:
        raise ValueError(f"verl.actor_rollout_ref.rollout.name is {rollout.name}: {error}") from error


def patch_worker() -> None:
    """What every process of verl's needs; `plugin` calls it there."""
    import verl.models.transformers.monkey_patch as monkey_patch

    monkey_patch.is_trl_available = lambda: False


def make_workers(config: Any) -> Any:
    """verl's worker groups, rollout servers and weight sync, started, without verl's loop.

    Args:
        config: verl's own, of `config.verl_config`; Ray is up.
    """
    from verl.trainer.ppo.v1 import PPOTrainerSync

    class Bare(PPOTrainerSync):  # type: ignore[misc]
        def _build_replay_buffer(self) -> None:
            return None

        def _init_dataloader(self) -> None:
            return None

        def _load_checkpoint(self) -> None:
            self.global_steps = 0

    bare = Bare(config)
    bare._setup()
    return bare


class Workers:
    """The policy, the reference policy and the critic on verl's workers.

    Args:
        config: verl's own; Ray is up.
        temperature: of sampling; all log-probs are at it.
        idle_token: what padding rows are made of.
        epochs: passes over the mini-batches of an update.
    """

    def __init__(self, config: Any, *, temperature: float, idle_token: int, epochs: int) -> None:
        self._bare = make_workers(config)
        self._actor = self._bare.actor_rollout_wg
        self._temperature, self._epochs, self._idle = temperature, epochs, idle_row(idle_token)
        self.client = self._bare.get_llm_client()

    # ------------------------------------------------------------------ weights

    def send_weights(self, step: int) -> None:
        """Wake the rollout servers with the policy as it is."""
        self._bare.checkpoint_manager.update_weights(step)

    def sleep(self) -> None:
        """Have the rollout servers free their memory."""
        self._bare.checkpoint_manager.sleep_replicas()

    def save(self, folder: Path, step: int) -> None:
        """Every rank writes its shards: a file system that all of them share."""
        self._actor.save_checkpoint(str(folder / "actor"), global_step=step)
        if self._bare.use_critic:
            self._bare.critic_wg.save_checkpoint(str(folder / "critic"), global_step=step)

    def load(self, folder: Path) -> None:
        """What `save` wrote, by as many ranks."""
        self._actor.load_checkpoint(str(folder / "actor"))
        if self._bare.use_critic:
            self._bare.critic_wg.load_checkpoint(str(folder / "critic"))

    # ------------------------------------------------------------------ forward passes

    def log_probs(self, rows: Sequence[Row]) -> list[Tensor]:
        """The policy's log-probs of the rollouts' tokens, [T] float32 a row."""
        return self._forward(rows, self._actor, lambda batch: self._actor.compute_log_prob(batch), "log_probs")

    def reference_log_probs(self, rows: Sequence[Row]) -> list[Tensor]:
        """The reference policy's."""
        group = self._bare.ref_policy_wg
        return self._forward(rows, group, lambda batch: group.compute_ref_log_prob(batch), "log_probs", mesh="ref")

    def values(self, rows: Sequence[Row]) -> list[Tensor]:
        """The critic's value before each of the rollouts' tokens, [T] float32 a row."""
        group = self._bare.critic_wg
        return self._forward(rows, group, lambda batch: group.infer_batch(batch).get(), "values", mesh="train")

    def _forward(
        self, rows: Sequence[Row], group: Any, call: Callable[[Any], Any], name: str, mesh: str = "actor"
    ) -> list[Tensor]:
        """One pass without gradient, rows spread over the ranks."""
        if not rows:
            return []
        (order, _) = layout([rows], _ranks(group, mesh))
        settings = {"temperature": self._temperature, "calculate_entropy": False, "compute_loss": False}
        batch = batch_of([self._idle if i is None else rows[i] for i in order], {}, settings)
        found: dict[int, Tensor] = {
            i: each for i, each in zip(order, of_rollouts(call(batch), name, batch), strict=True) if i is not None
        }
        return [found[i] for i in range(len(rows))]

    # ------------------------------------------------------------------ updates

    def set_losses(self, actor: Callable[..., Any], critic: Callable[..., Any] | None) -> None:
        """Give the workers their losses, which they unpickle: functions of modules that are installed everywhere."""
        self._actor.set_loss_fn(actor)
        if critic is not None:
            self._bare.critic_wg.set_loss_fn(critic)

    def update_actor(
        self, batches: Sequence[Sequence[Row]], columns: Mapping[str, Sequence[Tensor] | Tensor], *, entropy: bool
    ) -> dict[str, list[Any]]:
        """One optimizer step of the policy for each of the mini-batches, in each epoch.

        Args:
            batches: rows of each mini-batch.
            columns: more of all their rows in this order: one [T] tensor a row, or a tensor [N].
            entropy: whether the loss needs it.

        Returns:
            What the loss said, and loss and grad_norm, a list of each.
        """
        return self._update(
            batches, columns, self._actor, lambda batch: self._actor.update_actor(batch), "actor", entropy
        )

    def update_critic(
        self, batches: Sequence[Sequence[Row]], columns: Mapping[str, Sequence[Tensor] | Tensor]
    ) -> dict[str, list[Any]]:
        """The same of the critic."""
        group = self._bare.critic_wg
        return self._update(batches, columns, group, lambda batch: group.train_mini_batch(batch).get(), "train", False)

    def _update(
        self,
        batches: Sequence[Sequence[Row]],
        columns: Mapping[str, Sequence[Tensor] | Tensor],
        group: Any,
        call: Callable[[Any], Any],
        mesh: str,
        entropy: bool,
    ) -> dict[str, list[Any]]:
        """Rows in the order in which every rank gets as many of each mini-batch, padded with idle ones."""
        from verl.utils.tensordict_utils import get

        rows = [row for batch in batches for row in batch]
        order, size = layout(batches, _ranks(group, mesh))
        settings = {
            "temperature": self._temperature,
            "mini_batch_size": size,
            "global_batch_size": size,
            "epochs": self._epochs,
            "seed": 0,
            "dataloader_kwargs": {"shuffle": False},
            "calculate_entropy": entropy,
            "compute_loss": True,
        }
        spread: dict[str, Sequence[Tensor] | Tensor] = {}
        for name, column in columns.items():
            none = torch.zeros_like(column[0][:1]) if not isinstance(column, Tensor) else torch.zeros_like(column[0])
            values = [none if i is None else column[i] for i in order]
            spread[name] = torch.stack(values) if isinstance(column, Tensor) else values
        batch = batch_of([self._idle if i is None else rows[i] for i in order], spread, settings)
        return {name: _flat(values) for name, values in get(call(batch), "metrics").items()}


def _ranks(group: Any, mesh: str) -> int:
    """How many data-parallel ranks a worker group has."""
    if mesh not in group._dispatch_info:
        group._dispatch_info[mesh] = group._query_dispatch_info(mesh)
    return int(max(group._dispatch_info[mesh])) + 1


def _flat(values: Any) -> list[Any]:
    """A number or a tuple, or lists of them, as one list."""
    if isinstance(values, list):
        return [each for part in values for each in _flat(part)]
    return [values if isinstance(values, tuple) else float(values)]


def check_shards(folder: Path, ranks: int, *, critic: bool) -> None:
    """Raise ValueError where a checkpoint is not what so many ranks wrote, or not whole; says what to do.

    Args:
        folder: what `VerlEngine.save` filled; of Megatron's, only engine.json is looked at.
        ranks: as many will load it.
        critic: whether it should hold one.
    """
    remedy = "remove that checkpoint, or restore it, and resume again"
    if not (folder / "engine.json").is_file():
        raise ValueError(f"{folder / 'engine.json'} is missing: {remedy}")
    for part in (folder / name for name in ("actor", "critic")[: 1 + critic]):
        if part.is_dir() and not (part / "fsdp_config.json").is_file():
            continue
        if counts := {int(file.name.split("_")[3]) for file in part.glob("model_world_size_*_rank_*.pt")} - {ranks}:
            raise ValueError(
                f"{part} was written by {max(counts)} ranks; verl.trainer.nnodes x verl.trainer.n_gpus_per_node is {ranks}: "
                f"set them as they were, or start a new run from its weights with {as_model(folder)}"
            )
        for name in (f"{kind}_world_size_{ranks}_rank_{i}.pt" for kind in SHARD_KINDS for i in range(ranks)):
            if not zipfile.is_zipfile(part / name):  # whole, as torch writes them: a ZIP file's directory is at its end
                raise ValueError(f"{part / name} is missing or cut off: {remedy}")


def merge(actor: Path, folder: Path) -> None:
    """The shards of a policy as one folder in Hugging Face format, by verl's own tool.

    Raises:
        ValueError: it failed; says how.
    """
    backend = "fsdp" if (actor / "fsdp_config.json").is_file() else "megatron"
    command = [sys.executable, "-m", "verl.model_merger", "merge", f"--backend={backend}"]
    done = subprocess.run(
        [*command, f"--local_dir={actor}", f"--target_dir={folder}"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ValueError(f"{actor}: {' '.join(command[2:])} failed: {said[-1]}")
