"""Sample rollouts from an OpenAI-compatible server, which applies its own chat template."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import nan

from guide_rl.chat.client import ChatClient, ChatError, ChatReply, ChatRequest
from guide_rl.chat.endpoint import Messages
from guide_rl.samplers.request_seed import request_seed
from guide_rl.types import Finish, Request, Rollout


class ChatSampler:
    """A `types.Sampler` over a chat client: messages instead of token ids, and no log-probs.

    Each request carries a seed of its own, so that the rollouts of a problem are different requests; whether the same seed
    gives the same reply is the server's affair. A request that fails for good comes out as a rollout with finish `failed`.

    Args:
        client: asks the server; with `empty=True` an empty reply is a rollout too.
        messages: (problem id, guided) -> the prompt.
    """

    def __init__(self, client: ChatClient, messages: Callable[[str, bool], Messages]) -> None:
        self._client, self._messages = client, messages
        self._waiting: deque[Request] = deque()
        self._asked: dict[str, Request] = {}
        self._answers: Iterator[tuple[str, ChatReply | ChatError]] | None = None

    def submit(self, requests: Sequence[Request]) -> None:
        """Add requests; their `prompt_ids` are not read."""
        self._waiting.extend(requests)

    def poll(self) -> list[Rollout]:
        """Wait for the next answer; [] when idle.

        Raises:
            ConnectionError: the server cannot be used as the recipe says; the message says why.
        """
        while self._answers is not None or self._waiting:
            if self._answers is None:
                self._answers = self._client.ask(self._unasked())
            answer = next(self._answers, None)
            if answer is not None:
                return [self._rollout(self._asked.pop(answer[0]), answer[1])]
            self._answers = None
        return []

    def _unasked(self) -> Iterator[ChatRequest]:
        """The requests that wait, as the client reads them."""
        while self._waiting:
            request = self._waiting.popleft()
            key = f"{request.problem_id} {request.guided} {request.index}"
            self._asked[key] = request
            yield key, self._messages(request.problem_id, request.guided), {"seed": request_seed(request)}

    def _rollout(self, request: Request, answer: ChatReply | ChatError) -> Rollout:
        """What became of a request."""
        finish: Finish
        if isinstance(answer, ChatError):
            text, finish, tokens = str(answer), "failed", 0
        else:
            text, tokens = answer.text, answer.completion_tokens
            finish = "length" if answer.finish == "length" else "stop"
        return Rollout(
            problem_id=request.problem_id,
            index=request.index,
            guided=request.guided,
            prompt_ids=(),
            token_ids=(),
            logprobs=(),
            text=text,
            finish=finish,
            entropy=nan,
            counted_tokens=tokens,
        )
