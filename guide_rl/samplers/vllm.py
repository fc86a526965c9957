"""Sample rollouts through vLLM, in this process and the ones that it starts."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import nan
from typing import Any

from guide_rl.samplers.request_seed import request_seed
from guide_rl.samplers.rollout_text import RolloutText
from guide_rl.types import Finish, Request, Rollout


@contextmanager
def vllm_engine(model: str, options: Mapping[str, Any]) -> Iterator[Any]:
    """A `vllm.LLM`, which gives back its memory at the end.

    Args:
        model: a model folder or a hub name.
        options: further settings of vllm.LLM.

    Raises:
        ValueError: vLLM cannot load the model as asked; says what vLLM says.
    """
    import vllm

    try:
        llm = vllm.LLM(model=model, **options)
    except (TypeError, RuntimeError, AssertionError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:500]
        raise ValueError(f"vLLM does not start ({type(error).__name__}: {said}); see what it printed above") from error
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()


class VLLMSampler:
    """A `types.Sampler` over vLLM.

    One seed a request: the same request gives the same rollout, but for rounding, which in vLLM depends on the batch (also
    at temperature 0). Log-probs are those of the model at temperature 1, whatever the temperature; the entropy is unknown.

    Args:
        engine: a `vllm.LLM` that nothing else uses meanwhile.
        tokenizer: decodes rollouts.
        temperature: divides the logits; 0 means greedy.
        max_tokens: longest rollout.
        stop: strings that end a rollout.
        top_p: nucleus sampling.
        top_k: sample among the likeliest only; 0 means all.
    """

    def __init__(
        self,
        *,
        engine: Any,
        tokenizer: Any,
        temperature: float,
        max_tokens: int,
        stop: Sequence[str] = (),
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> None:
        self._engine = engine.llm_engine
        generation = engine.model_config.try_get_generation_config()
        named = generation.get("eos_token_id")
        eos = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}
        self._text = RolloutText(tokenizer, eos_token_ids=eos, stop=stop)
        self._settings = {
            "temperature": temperature,
            "max_tokens": max_tokens,
            "stop": list(stop) or None,
            "stop_token_ids": sorted(eos),
            "top_p": top_p,
            "top_k": top_k,
            "skip_special_tokens": False,  # stop strings may lie in them
            "logprobs": 0,
        }
        self._requests: dict[str, Request] = {}
        self._count = 0

    def submit(self, requests: Sequence[Request]) -> None:
        """Hand requests to vLLM, which lets them enter when there is room.

        Raises:
            ValueError: a prompt is empty or leaves no room for a rollout.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for request in requests:
            name = str(self._count)
            self._count += 1
            settings = SamplingParams(
                seed=request_seed(request), output_kind=RequestOutputKind.FINAL_ONLY, **self._settings
            )
            self._engine.add_request(name, {"prompt_token_ids": list(request.prompt_ids)}, settings)
            self._requests[name] = request

    def poll(self) -> list[Rollout]:
        """Work until at least one rollout has finished and return all that have; [] when idle."""
        while self._requests:
            finished = [output for output in self._engine.step() if output.finished]
            if finished:
                return [self._rollout(self._requests.pop(output.request_id), output.outputs[0]) for output in finished]
        return []

    def _rollout(self, request: Request, output: Any) -> Rollout:
        """What vLLM says of a finished request."""
        finish: Finish = "length" if output.finish_reason == "length" else "eos"
        if isinstance(output.stop_reason, str):
            finish = "stop"
        ids = tuple(output.token_ids)
        return Rollout(
            problem_id=request.problem_id,
            index=request.index,
            guided=request.guided,
            prompt_ids=request.prompt_ids,
            token_ids=ids,
            logprobs=tuple(known[token].logprob for token, known in zip(ids, output.logprobs, strict=True)),
            text=self._text.final(ids, stopped=finish == "stop"),
            finish=finish,
            entropy=nan,
        )
