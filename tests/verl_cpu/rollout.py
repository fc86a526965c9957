"""The rollout "transformers_cpu": a Ray actor per replica that samples with transformers, and what sends it weights.

It answers as verl's vLLM server does: `logprobs` must be asked for, a sleeping server refuses requests, `top_k` below 1 keeps
all tokens. Not as vLLM: log-probs are those of the full distribution at the temperature (1 when greedy), before top_p and
top_k; a request with a `seed` draws from its own generator, so that its tokens do not depend on the batch it ran in. There
are no stop strings.
"""

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
import torch.distributed
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

from guide_rl.samplers.token_choice import choose

NAME = "transformers_cpu"
STALE_WEIGHTS = "VERL_TEST_STALE_WEIGHTS"
"""Environment variable: with 1, servers keep the first weights that they are sent."""
GATHER_SECONDS = float(os.environ.get("VERL_TEST_GATHER_SECONDS", "0.005"))
"""How long a batch waits for more requests, which cannot join it later."""


@dataclass(eq=False)
class _Request:
    """A prompt that waits for its tokens."""

    prompt: Sequence[int]
    max_tokens: int
    settings: tuple[float, float, int]
    """Temperature, top_p, top_k: what the rows of a batch share."""
    uniforms_T: Tensor
    """One number in [0, 1) a token, float64."""
    answer: asyncio.Future[TokenOutput]
    want_logprobs: bool
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Server:
    """A transformers model that completes prompts; requests that wait together run together.

    Args:
        path: model folder.
        config: verl's RolloutConfig.
        replica_rank: which replica this is; with `config.seed`, the seed for requests without one.
    """

    def __init__(self, path: str, config: Any, replica_rank: int) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()
        eos = self._model.generation_config.eos_token_id
        self._eos = {eos} if isinstance(eos, int) else set(eos)
        self._config = config
        self._generator = torch.Generator().manual_seed(config.seed + replica_rank)
        self._waiting: list[_Request] = []
        self._work: asyncio.Task[None] | None = None
        self._asleep = False
        self._step: int | None = None
        self._updates = 0

    async def ready(self) -> None:
        """Return once the model is loaded."""

    async def generate(
        self, prompt_ids: Sequence[int], sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> TokenOutput:
        """Complete a prompt.

        Args:
            prompt_ids: the prompt's tokens.
            sampling_params: temperature, top_p, top_k, max_tokens, seed, logprobs (bool), as for vLLM.
            request_id: unused.
            _: images and the like; unused.

        Raises:
            RuntimeError: the server sleeps.
            ValueError: a stop string is asked for.
        """
        if self._asleep:
            raise RuntimeError("the rollout server sleeps: its weights are void until update_weights")
        if sampling_params.get("stop"):
            raise ValueError(f"the rollout {NAME} knows no stop strings; got {sampling_params['stop']!r}")
        seed, max_tokens = sampling_params.get("seed"), sampling_params.get("max_tokens", self._config.response_length)
        generator = self._generator if seed is None else torch.Generator().manual_seed(seed)
        request = _Request(
            prompt_ids,
            max_tokens,
            tuple(
                sampling_params.get(name, default) for name, default in (("temperature", 1), ("top_p", 1), ("top_k", 0))
            ),
            torch.rand(max_tokens, dtype=torch.float64, generator=generator),
            asyncio.get_running_loop().create_future(),
            bool(sampling_params.get("logprobs")),
        )
        self._waiting.append(request)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run())
        return await request.answer

    async def _run(self) -> None:
        """Answer requests until none waits."""
        while self._waiting:
            await asyncio.sleep(GATHER_SECONDS)
            alike = [request for request in self._waiting if request.settings == self._waiting[0].settings]
            batch = alike[: self._config.max_num_seqs]
            self._waiting = [request for request in self._waiting if request not in batch]
            try:
                await asyncio.to_thread(self._complete, batch)
            except Exception as error:
                for request in batch:
                    request.answer.set_exception(error)
            else:
                for request in batch:
                    request.answer.set_result(self._output(request))

    def _output(self, request: _Request) -> TokenOutput:
        return TokenOutput(
            token_ids=request.tokens,
            log_probs=request.logprobs if request.want_logprobs else None,
            stop_reason="completed",
            extra_fields={"global_steps": self._step},
        )

    @torch.no_grad()
    def _complete(self, batch: Sequence[_Request]) -> None:
        """Fill in the tokens and log-probs of requests that share their settings; N rows, padded on the left to P."""
        temperature, top_p, top_k = batch[0].settings
        longest = max(len(request.prompt) for request in batch)
        tokens_NP = torch.tensor([[0] * (longest - len(request.prompt)) + list(request.prompt) for request in batch])
        lengths_N1 = torch.tensor([[len(request.prompt)] for request in batch])
        positions_NP = torch.arange(longest) - (longest - lengths_N1)
        mask_NP = (positions_NP >= 0).long()
        cache, active = DynamicCache(), set(batch)
        for step in range(max(request.max_tokens for request in batch)):
            logits_NV = self._model(
                input_ids=tokens_NP,
                attention_mask=mask_NP,
                position_ids=positions_NP.clamp_min(0),
                past_key_values=cache,
                logits_to_keep=1,
            ).logits[:, -1]
            uniforms_N = torch.stack([request.uniforms_T[min(step, request.max_tokens - 1)] for request in batch])
            choice = choose(
                logits_NV, uniforms_N if temperature else None, temperature=temperature, top_p=top_p, top_k=top_k
            )
            for request, token, logprob in zip(
                batch, choice.tokens_N.tolist(), choice.logprobs_N.tolist(), strict=True
            ):
                if request in active:
                    request.tokens.append(token)
                    request.logprobs.append(logprob)
                    if token in self._eos or len(request.tokens) == request.max_tokens:
                        active.remove(request)
            if not active:
                return
            tokens_NP, positions_NP = choice.tokens_N[:, None], positions_NP[:, -1:] + 1
            mask_NP = torch.cat((mask_NP, torch.ones_like(lengths_N1)), dim=1)

    async def update_weights(self, weights: dict[str, Tensor], global_steps: int | None) -> None:
        """Take new weights, all of them (under STALE_WEIGHTS the first only)."""
        self._step = global_steps
        self._updates += 1
        if self._updates == 1 or os.environ.get(STALE_WEIGHTS) != "1":
            self._model.load_state_dict(weights)

    async def sleep(self) -> None:
        """Finish the requests at hand, then refuse more until woken, where verl frees the memory of sleeping servers."""
        if self._work is not None:
            await self._work
        self._asleep = self._config.free_cache_engine

    async def wake_up(self) -> None:
        """Answer again."""
        self._asleep = False

    async def nothing(self) -> None:
        """What verl may ask of a server that keeps no cache and cannot be interrupted."""

    clear_kv_cache = release_kv_cache = resume_kv_cache = resume_generation = nothing


class Replica(RolloutReplica):
    """One `Server`, whatever the replica's size."""

    async def launch_servers(self) -> None:
        """Start it and wait for its model."""
        self._server_address = _actor_name(self.replica_rank)
        self._server_handle = (
            ray.remote(Server)
            .options(num_cpus=0, name=self._server_address, max_concurrency=self.max_concurrency)
            .remote(self.model_config.path, self.config, self.replica_rank)
        )
        self.servers = [self._server_handle]
        await self._server_handle.ready.remote()


class WeightSender(base.BaseRollout):
    """The replica's end in the training workers: the first worker of a replica sends it the weights."""

    async def resume(self, tags: list[str]) -> None:
        """Wake the server once its weights are in place."""
        if "kv_cache" in tags and self._leads:
            await self._server.wake_up.remote()

    async def release(self) -> None:
        """Nothing to free."""

    async def update_weights(
        self,
        weights: Iterable[tuple[str, Tensor]],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        """Send all weights; every worker must consume them, as gathering them is a collective."""
        assert wire_format == "named_tensors", f"unknown wire format {wire_format}"
        named = {name: tensor.detach().float().cpu() for name, tensor in weights}
        if self._leads:
            await self._server.update_weights.remote(named, global_steps)

    @property
    def _replica_size(self) -> int:
        config = self.config
        return config.tensor_model_parallel_size * config.data_parallel_size * config.pipeline_model_parallel_size

    @property
    def _leads(self) -> bool:
        return torch.distributed.get_rank() % self._replica_size == 0

    @property
    def _server(self) -> Any:
        return ray.get_actor(_actor_name(torch.distributed.get_rank() // self._replica_size))


def _actor_name(replica_rank: int) -> str:
    return f"{NAME}_{replica_rank}"


RolloutReplicaRegistry.register(NAME, lambda: Replica)
base._ROLLOUT_REGISTRY[(NAME, "async")] = f"{__name__}.{WeightSender.__name__}"  # verl has no function for this
