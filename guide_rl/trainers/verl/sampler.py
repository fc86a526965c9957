"""Requests -> Rollouts through verl's rollout servers (vLLM, SGLang): a stream, as `types.Sampler` asks for."""

import asyncio
import queue
import threading
from collections.abc import Callable, Collection, Coroutine, Sequence
from statistics import fmean
from typing import Any, Protocol

from guide_rl.samplers.request_seed import request_seed
from guide_rl.samplers.rollout_text import RolloutText
from guide_rl.trainers.engine import EngineLost
from guide_rl.types import Finish, Request, Rollout


class Client(Protocol):
    """verl's `LLMServerClient`, as far as it is used here."""

    def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Token ids and log-probs of one rollout."""
        ...


class Loop:
    """An event loop in a thread of its own, in which requests wait for their servers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rollout requests", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside everything else."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Drop what still waits."""

        async def cancel() -> None:
            waiting = asyncio.all_tasks() - {asyncio.current_task()}
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()


class ServerSampler:
    """Rollouts come out as the servers finish them; those of one prompt go to one server, which runs it once, unless seeded.

    Args:
        client: reaches the servers.
        loop: where requests wait.
        text: decodes rollouts; holds the stop strings.
        eos_token_ids: tokens that end a rollout.
        temperature: of sampling, and of the log-probs; 0 is greedy.
        max_tokens: longest rollout; shorter where a prompt leaves less room.
        top_p: nucleus sampling; log-probs are then of the tokens that it leaves.
        top_k: sample among so many; 0 means all.
        seeded: give each request the seed that follows from it alone, so that other batches give the same rollouts, as far as
            the servers' rounding goes; it costs speed.
        explained: turns an error of a server into one that says what to do.
    """

    def __init__(
        self,
        client: Client,
        loop: Loop,
        text: RolloutText,
        *,
        eos_token_ids: Collection[int],
        temperature: float,
        max_tokens: int,
        top_p: float = 1.0,
        top_k: int = 0,
        seeded: bool = False,
        explained: Callable[[Exception], Exception] = lambda error: error,
    ) -> None:
        self._client, self._loop, self._text = client, loop, text
        self._eos, self._seeded, self._explained = frozenset(eos_token_ids), seeded, explained
        self._params: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k or -1,
            "max_tokens": max_tokens,
            "logprobs": True,
            "stop_token_ids": sorted(self._eos),
        }
        if text.stop:
            self._params |= {"stop": list(text.stop), "skip_special_tokens": False}  # they may be special tokens
        self._done: queue.SimpleQueue[Rollout | Exception] = queue.SimpleQueue()
        self._waiting = 0

    def submit(self, requests: Sequence[Request]) -> None:
        """Send requests; the servers queue what they cannot decode yet."""
        self._waiting += len(requests)
        for request in requests:
            self._loop.start(self._answer(request))

    def poll(self) -> list[Rollout]:
        """Wait until at least one rollout has finished and return all that have; [] when idle.

        Raises:
            Exception: what `explained` makes of a server's error.
        """
        if not self._waiting:
            return []
        found = [self._done.get()]
        while not self._done.empty():
            found.append(self._done.get())
        self._waiting -= len(found)
        for each in found:
            if isinstance(each, Exception):
                raise self._explained(each) from each
        return [each for each in found if isinstance(each, Rollout)]

    async def _answer(self, request: Request) -> None:
        """One rollout, or the error instead of it."""
        params = dict(self._params)
        name = f"{request.seed} {request.guided} {request.problem_id}"  # the same name, the same server
        if self._seeded:
            params["seed"] = request_seed(request)
            name += f" {request.index}"  # with verl's full_determinism it is the request's id in the server, too
        try:
            output = await self._client.generate(name, prompt_ids=list(request.prompt_ids), sampling_params=params)
            self._done.put(self._rollout(request, tuple(output.token_ids), output.log_probs))
        except Exception as error:
            self._done.put(error)

    def _rollout(self, request: Request, token_ids: tuple[int, ...], logprobs: Sequence[float] | None) -> Rollout:
        """What a server sent, as a rollout; it does not say what ended it, and a server's limit may be below `max_tokens`."""
        if not token_ids or logprobs is None or len(logprobs) != len(token_ids):
            raise EngineLost(
                f"a rollout server sent {len(token_ids)} tokens with {len(logprobs or ())} log-probs for problem "
                f"{request.problem_id!r}; see its log"
            )
        finish: Finish = "length"
        if token_ids[-1] in self._eos:
            finish = "eos"
        elif self._text.stop and self._text.before_stop(self._text.decode(token_ids)) is not None:
            finish = "stop"
        return Rollout(
            problem_id=request.problem_id,
            index=request.index,
            guided=request.guided,
            prompt_ids=request.prompt_ids,
            token_ids=token_ids,
            logprobs=tuple(logprobs),
            text=self._text.final(token_ids, stopped=finish == "stop"),
            finish=finish,
            entropy=-fmean(logprobs),
        )
