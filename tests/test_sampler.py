import math
from collections import Counter
from functools import cache
from itertools import combinations

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer
from transformers import DynamicCache

from guide_rl.samplers import kv_cache, token_choice
from guide_rl.samplers.causal_lm import CausalLM
from guide_rl.samplers.rollout_text import RolloutText
from guide_rl.samplers.transformers import TransformersSampler
from guide_rl.types import Request, Rollout

TOKENIZER = tiny_tokenizer()
NO_EOS = [10**6]
NAMES = ["qwen2", "llama", "gpt2"]
TEXTS = ["12+7", "a", "what is 3 times 4?", "xyz", "count the vowels in this longer prompt, please", "Q: 9-4", "hello"]


def sampler(model, **settings) -> TransformersSampler:
    defaults = {"temperature": 1.0, "max_tokens": 12, "batch_size": 4, "eos_token_ids": NO_EOS}
    return TransformersSampler(model=model, tokenizer=TOKENIZER, **(defaults | settings))


def requests(texts, k=1, seed=(0,)) -> list[Request]:
    return [Request(text, i, False, tuple(TOKENIZER.encode(text)), seed) for text in texts for i in range(k)]


def drain(stream: TransformersSampler) -> list[Rollout]:
    rollouts: list[Rollout] = []
    while finished := stream.poll():
        rollouts += finished
    return rollouts


def roll(model, wanted, **settings) -> dict[tuple, Rollout]:
    stream = sampler(model, **settings)
    stream.submit(wanted)
    rollouts = drain(stream)
    assert len(rollouts) == len(wanted)
    return {(rollout.problem_id, rollout.index): rollout for rollout in rollouts}


def generate(model, prompt_ids, max_tokens, eos=None) -> list[int]:
    ids = torch.tensor([prompt_ids])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_tokens,
        eos_token_id=eos,
        pad_token_id=0,
    )
    return out[0, len(prompt_ids) :].tolist()


@cache
def greedy_chains(name) -> dict[str, list[int]]:
    """model.generate's 20 tokens for each text, EOS ignored."""
    return {request.problem_id: generate(tiny_model(name), request.prompt_ids, 20) for request in requests(TEXTS)}


def cut(chain, eos) -> list[int]:
    """The chain up to its first EOS, as generate ends it."""
    return chain[: min((chain.index(token) for token in eos if token in chain), default=len(chain)) + 1]


def assert_greedy_equals_generate(name, k=1, **overrides):
    chains = greedy_chains(name)
    tokens = sorted({token for chain in chains.values() for token in chain})
    eos = max(combinations(tokens, 2), key=lambda pair: len({len(cut(chain, pair)) for chain in chains.values()}))
    assert len({len(cut(chain, eos)) for chain in chains.values()}) >= 4, "rows must leave at different times"
    model = tiny_model(name, **overrides)
    rollouts = roll(model, requests(TEXTS, k), temperature=0.0, max_tokens=20, eos_token_ids=eos, batch_size=3)
    for (text, _), rollout in rollouts.items():
        assert list(rollout.token_ids) == cut(chains[text], eos)
        assert rollout.finish == ("eos" if rollout.token_ids[-1] in eos else "length")


# ---------------------------------------------------------------------- exactness


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NAMES)
def test_greedy_equals_generate_while_rows_leave_and_enter(name, attention):
    assert_greedy_equals_generate(name, attn_implementation=attention)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_equals_generate_when_the_buffers_grow_and_shift(name, monkeypatch):
    monkeypatch.setattr(kv_cache, "ROOM", 8)
    monkeypatch.setattr(kv_cache, "ROWS_AT_ONCE", 2)
    moves = Counter()
    for move in ("shift", "reallocate"):
        original = getattr(kv_cache._RowLayer, move)
        monkeypatch.setattr(kv_cache._RowLayer, move, lambda *a, m=move, f=original: (moves.update([m]), f(*a))[1])
    assert_greedy_equals_generate(name, k=3)
    assert moves["reallocate"] > 4
    assert moves["shift"] > 0


@pytest.fixture
def empty_is_nan():
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


def test_uninitialised_memory_never_reaches_a_rollout(empty_is_nan):
    assert_greedy_equals_generate("qwen2")


def test_columns_that_a_row_does_not_own_are_finite(empty_is_nan):
    cache = kv_cache.RowCache()
    for length in (4, 2, 9):
        prompt = DynamicCache()
        prompt.update(torch.ones(1, 1, length, 3), torch.ones(1, 1, length, 3), 0)
        cache.append(prompt, [length], [0, 0])
        _, mask = cache.open_column()
        keys, values = cache.update(torch.ones(*mask.shape[:3], 3), torch.ones(*mask.shape[:3], 3), 0)
        cache.close_column()
        assert keys.shape[2] == mask.shape[-1]
        assert keys.isfinite().all()
        assert values.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_logprobs_and_entropies_are_those_of_a_full_forward(name):
    model = tiny_model(name)
    for rollout in roll(model, requests(TEXTS, k=2), temperature=0.7, eos_token_ids=[20, 30, 40]).values():
        ids = torch.tensor([rollout.prompt_ids + rollout.token_ids])
        with torch.no_grad():
            logprobs_TV = (model(ids).logits[0, len(rollout.prompt_ids) - 1 : -1] / 0.7).log_softmax(-1)
        expected_T = logprobs_TV.gather(-1, torch.tensor(rollout.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected_T, atol=1e-5, rtol=1e-5)
        entropy = -(logprobs_TV.exp() * logprobs_TV).sum(-1).mean().item()
        assert rollout.entropy == pytest.approx(entropy, abs=1e-5)


def test_greedy_logprobs_are_at_temperature_one():
    model = tiny_model("llama")
    (rollout,) = roll(model, requests(["12+7"]), temperature=0.0).values()
    with torch.no_grad():
        logits_TV = model(torch.tensor([rollout.prompt_ids + rollout.token_ids])).logits[0, 3:-1]
    expected_T = logits_TV.log_softmax(-1).max(-1).values
    torch.testing.assert_close(torch.tensor(rollout.logprobs), expected_T, atol=1e-5, rtol=1e-5)


def test_sampled_frequencies_match_the_softmax():
    model = tiny_model("qwen2", vocab_size=16, initializer_range=0.25, bos_token_id=1, eos_token_id=1, pad_token_id=0)
    wanted = [Request("p", i, False, (5, 7, 3), (1,)) for i in range(4000)]
    rollouts = roll(model, wanted, max_tokens=1, batch_size=512, temperature=1.3)
    counts_V = torch.zeros(16)
    for rollout in rollouts.values():
        counts_V[rollout.token_ids[0]] += 1
    with torch.no_grad():
        expected_V = (model(torch.tensor([[5, 7, 3]])).logits[0, -1] / 1.3).softmax(-1) * 4000
    assert expected_V.min() > 5
    chi_square = ((counts_V - expected_V) ** 2 / expected_V).sum().item()
    assert chi_square < 30.6, "the 99th percentile of chi-square with 15 degrees of freedom"


# ---------------------------------------------------------------------- choosing tokens


def test_a_token_of_probability_zero_is_never_chosen():
    probs_NV = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]])
    edges = torch.tensor([0.0, 0.3, math.nextafter(0.3, 0), 0.5, 1 - 2**-53], dtype=torch.float64)
    tokens = token_choice.inverse_cdf(probs_NV.expand(5, -1), edges)
    assert set(tokens.tolist()) == {1, 3}


def test_probability_masses_add_up_without_rounding_in_any_order():
    probs_NV = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)).mul(8).softmax(-1)
    masses_NV = token_choice.whole_masses(probs_NV)
    assert probs_NV.min() < 1e-12
    exact = [sum(int(mass) for mass in masses_V) for masses_V in masses_NV.tolist()]
    assert masses_NV.cumsum(-1)[:, -1].tolist() == masses_NV.flip(-1).cumsum(-1)[:, -1].tolist() == exact


def test_masked_logits_leave_the_entropy_finite():
    logits_NV = torch.tensor([[0.0, 0.0, -math.inf]])
    choice = token_choice.choose(logits_NV, torch.tensor([0.9]).double(), temperature=1.0, top_p=1.0, top_k=0)
    assert choice.entropies_N.item() == pytest.approx(math.log(2))
    assert choice.tokens_N.item() == 1


def test_truncation_keeps_the_likeliest_tokens_only():
    probs_NV = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    assert token_choice.truncate(probs_NV, top_p=1.0, top_k=2).tolist() == [pytest.approx([0, 0.4, 0, 0.3])]
    assert token_choice.truncate(probs_NV, top_p=0.75, top_k=0).tolist() == [pytest.approx([0, 0.4, 0.2, 0.3])]
    assert token_choice.truncate(probs_NV, top_p=0.65, top_k=0).tolist() == [pytest.approx([0, 0.4, 0, 0.3])]
    assert token_choice.truncate(probs_NV, top_p=0.01, top_k=0).tolist() == [pytest.approx([0, 0.4, 0, 0])]
    # The nucleus is that of the two kept tokens: 0.4/0.7 = 0.57.
    assert token_choice.truncate(probs_NV, top_p=0.55, top_k=2).tolist() == [pytest.approx([0, 0.4, 0, 0])]


@pytest.mark.parametrize("cut", [{"top_k": 3}, {"top_p": 0.4}])
def test_sampled_tokens_lie_inside_the_cut_and_keep_full_logprobs(cut):
    model = tiny_model("llama")
    for rollout in roll(model, requests(TEXTS, k=4), **cut).values():
        with torch.no_grad():
            logits_TV = model(torch.tensor([rollout.prompt_ids + rollout.token_ids])).logits[0]
        probs_TV = logits_TV[len(rollout.prompt_ids) - 1 : -1].softmax(-1)
        for probs_V, token, logprob in zip(probs_TV, rollout.token_ids, rollout.logprobs, strict=True):
            likelier = probs_V[probs_V > probs_V[token] + 1e-6]
            assert len(likelier) < cut.get("top_k", 1000)
            assert likelier.sum() < cut.get("top_p", 1.0)
            assert logprob == pytest.approx(probs_V[token].log().item(), abs=1e-4)


# ---------------------------------------------------------------------- random streams


def test_a_rollout_does_not_depend_on_the_batch_it_ran_in():
    model = tiny_model("qwen2")
    crowd = roll(model, requests(TEXTS, k=4), batch_size=5, eos_token_ids=[20, 30, 40])
    for request in requests(TEXTS, k=4)[::5]:
        (alone,) = roll(model, [request], eos_token_ids=[20, 30, 40]).values()
        assert alone.token_ids == crowd[request.problem_id, request.index].token_ids


def test_streams_differ_by_seed_problem_index_and_guidance():
    ids = (10, 11)
    wanted = [
        Request("p", 0, False, ids, (0, 1)),
        Request("p", 0, False, ids, (0, 2)),
        Request("p", 1, False, ids, (0, 1)),
        Request("p", 0, True, ids, (0, 1)),
        Request("q", 0, False, ids, (0, 1)),
    ]
    assert len({tuple(token_choice.request_uniforms(request, 4).tolist()) for request in wanted}) == 5


def test_streams_are_the_same_in_every_process():
    uniforms = token_choice.request_uniforms(Request("p", 0, False, (1,), (7, 3)), 3)
    assert uniforms.tolist() == [0.5586098516603393, 0.9944581420423005, 0.6124313370994995]


# ---------------------------------------------------------------------- how rollouts end


def test_eos_counts_and_is_not_in_the_text():
    model = tiny_model("llama")
    (free,) = roll(model, requests(["12+7"]), temperature=0.0).values()
    eos = free.token_ids[5]
    length = free.token_ids.index(eos) + 1
    (rollout,) = roll(model, requests(["12+7"]), temperature=0.0, eos_token_ids=[eos]).values()
    assert (rollout.finish, rollout.token_ids) == ("eos", free.token_ids[:length])
    assert len(rollout.logprobs) == length
    assert rollout.text == TOKENIZER.decode(free.token_ids[: length - 1])
    (last,) = roll(model, requests(["12+7"]), temperature=0.0, eos_token_ids=[eos], max_tokens=length).values()
    assert last.finish == "eos"
    if length > 1:
        (cut,) = roll(model, requests(["12+7"]), temperature=0.0, eos_token_ids=[eos], max_tokens=length - 1).values()
        assert (cut.finish, cut.token_ids) == ("length", free.token_ids[: length - 1])


def test_eos_comes_from_generation_config_and_tokenizer_by_default():
    model = tiny_model("qwen2")
    (free,) = roll(model, requests(["a"]), temperature=0.0).values()
    model.generation_config.eos_token_id = [free.token_ids[2], 77]
    (rollout,) = roll(model, requests(["a"]), temperature=0.0, eos_token_ids=None).values()
    assert rollout.finish == "eos"
    assert rollout.token_ids[-1] == free.token_ids[2]


def test_a_stop_string_across_tokens_ends_the_rollout_and_is_cut_from_the_text():
    model = tiny_model("gpt2")
    free = roll(model, requests(TEXTS), max_tokens=24)
    for text, index in free:
        whole = free[text, index]
        stop = whole.text[9:12]
        (rollout,) = roll(model, requests([text]), max_tokens=24, stop=["never to be found", stop]).values()
        assert rollout.finish == "stop"
        assert rollout.text == whole.text[: whole.text.find(stop)]
        assert rollout.token_ids == whole.token_ids[: len(rollout.token_ids)]
        assert stop in TOKENIZER.decode(rollout.token_ids)
        assert stop not in TOKENIZER.decode(rollout.token_ids[:-1])


def test_stop_strings_are_found_in_characters_of_several_tokens():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens(["<eos>", "<answer>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")
    text = RolloutText(tokenizer, eos_token_ids=[tokenizer.eos_token_id], stop=["é∎"])
    ids = tokenizer.encode("naïve <answer>é∎")
    assert [text.ends_in_stop(ids[max(0, n - text.tail) : n]) for n in range(1, len(ids) + 1)] == [
        *[False] * (len(ids) - 1),
        True,
    ]
    assert text.final([*ids, tokenizer.eos_token_id], stopped=True) == "naïve <answer>"
    assert text.final([*ids, tokenizer.eos_token_id], stopped=False) == "naïve <answer>é∎"


def test_text_is_cut_before_the_first_of_several_stop_strings():
    text = RolloutText(TOKENIZER, eos_token_ids=[1], stop=["c", "bc"])
    assert text.final(TOKENIZER.encode("abc"), stopped=True) == "a"


def test_special_tokens_stay_in_the_text_but_eos_and_padding_do_not():
    text = RolloutText(TOKENIZER, eos_token_ids=[TOKENIZER.eos_token_id])
    assert text.decode(TOKENIZER.encode("a<|user|>b<|pad|>c<|eos|>")) == "a<|user|>bc"


# ---------------------------------------------------------------------- the stream


def test_late_requests_join_and_everything_comes_out_once():
    model = tiny_model("qwen2")
    stream = sampler(model, eos_token_ids=[20, 30, 40, 50, 60], max_tokens=30)
    first, late = requests(TEXTS[:3], k=3), requests(TEXTS[3:], k=3)
    stream.submit(first)
    rollouts = stream.poll()
    assert rollouts
    assert stream.progress.active + stream.progress.waiting == 9 - len(rollouts)
    stream.submit(late)
    rollouts += drain(stream)
    assert sorted((r.problem_id, r.index) for r in rollouts) == sorted((r.problem_id, r.index) for r in first + late)
    assert stream.progress.tokens == sum(len(rollout.token_ids) for rollout in rollouts)
    assert (stream.progress.active, stream.progress.waiting) == (0, 0)
    assert stream.poll() == []
    together = roll(model, first + late, eos_token_ids=[20, 30, 40, 50, 60], max_tokens=30)
    assert {(r.problem_id, r.index): r.token_ids for r in rollouts} == {k: r.token_ids for k, r in together.items()}


def test_the_same_calls_give_the_same_rollouts_bit_for_bit():
    model = tiny_model("llama")
    runs = []
    for _ in range(2):
        stream = sampler(model, eos_token_ids=[20, 30, 40])
        stream.submit(requests(TEXTS, k=2))
        polled = [stream.poll()]
        stream.submit(requests(["late"], k=3))
        while finished := stream.poll():
            polled.append(finished)
        runs.append(polled)
    assert runs[0] == runs[1]


def test_a_prompt_shared_by_a_group_is_run_once():
    model = tiny_model("qwen2")
    widths = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    roll(model, requests(TEXTS[:2], k=8), batch_size=16, max_tokens=3)
    assert widths == [(2, len(TEXTS[0])), (16, 1), (16, 1)]


def test_waiting_requests_take_freed_places_in_batches_while_others_run():
    model = tiny_model("qwen2")
    stream = sampler(model, batch_size=16, eos_token_ids=[20, 30, 40, 50, 60], max_tokens=30)
    free_at_admission = []

    def record(module, args, kwargs):
        if kwargs["input_ids"].shape[1] > 1 and stream.progress.active:
            free_at_admission.append(16 - stream.progress.active)

    model.register_forward_pre_hook(record, with_kwargs=True)
    stream.submit(requests(TEXTS, k=6))
    drain(stream)
    assert len(free_at_admission) >= 3
    assert min(free_at_admission) >= 2


def test_finished_rows_are_not_decoded():
    model = tiny_model("qwen2")
    decoded = Counter()
    model.register_forward_pre_hook(
        lambda module, args, kwargs: decoded.update(
            rows=kwargs["input_ids"].shape[0] * (kwargs["input_ids"].shape[1] == 1)
        ),
        with_kwargs=True,
    )
    rollouts = roll(model, requests(TEXTS[4:], k=8), batch_size=16, eos_token_ids=[20, 30, 40, 50, 60], max_tokens=30)
    assert decoded["rows"] == sum(len(rollout.token_ids) - 1 for rollout in rollouts.values())


def test_new_weights_are_seen_without_a_new_sampler():
    model = tiny_model("qwen2")
    stream = sampler(model, temperature=0.0)
    stream.submit(requests(TEXTS))
    before = {r.problem_id: r.token_ids for r in drain(stream)}
    with torch.no_grad():
        for parameter, other in zip(model.parameters(), tiny_model("qwen2", seed=1).parameters(), strict=True):
            parameter.copy_(other)
    stream.submit(requests(TEXTS))
    after = {r.problem_id: r.token_ids for r in drain(stream)}
    fresh = {r.problem_id: r.token_ids for r in roll(model, requests(TEXTS), temperature=0.0).values()}
    assert after == fresh != before


def test_sampling_leaves_no_trace_in_the_model():
    model = tiny_model("llama")
    model.train()
    model.lm_head.eval()
    modes = [module.training for module in model.modules()]
    stream = sampler(model)
    stream.submit(requests(TEXTS))
    stream.poll()
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == "sdpa"
    assert torch.is_grad_enabled()
    assert not any(tensor.is_inference() for tensor in [*model.parameters(), *model.buffers()])
    model(torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_lora_policies_sample_with_their_adapter():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = peft.get_peft_model(tiny_model("qwen2"), config).eval()
    with model.disable_adapter():
        plain = generate(model, requests(["12+7"])[0].prompt_ids, 12)
    expected = generate(model, requests(["12+7"])[0].prompt_ids, 12)
    (rollout,) = roll(model, requests(["12+7"]), temperature=0.0).values()
    assert list(rollout.token_ids) == expected != plain


def test_sampling_follows_the_callers_autocast():
    model = tiny_model("qwen2")
    exact = roll(model, requests(TEXTS, k=2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stream = sampler(model)
        stream.submit(requests(TEXTS, k=2))
        stream.poll()
        assert {layer.keys.dtype for layer in stream._cache.layers} == {torch.bfloat16}
        assert {layer.values.dtype for layer in stream._cache.layers} == {torch.bfloat16}
        rough = {(r.problem_id, r.index): r for r in drain(stream)}
    firsts = [
        (rough[key].logprobs[0], exact[key].logprobs[0])
        for key in rough
        if rough[key].token_ids[0] == exact[key].token_ids[0]
    ]
    assert firsts
    assert any(a != b for a, b in firsts)
    assert all(a == pytest.approx(b, abs=0.2) for a, b in firsts)


# ---------------------------------------------------------------------- what is refused


def test_prompts_that_cannot_be_continued_are_refused_before_anything_is_added():
    stream = sampler(tiny_model("gpt2", n_positions=32))
    good = requests(["12+7"])
    with pytest.raises(ValueError, match="empty"):
        stream.submit([*good, Request("p", 0, False, ())])
    with pytest.raises(
        ValueError,
        match=r"embeddings of 32; lower sampling.max_tokens to 2 or less or prompts.max_tokens to 20 or less or take",
    ):
        stream.submit([*good, Request("p", 0, False, (7,) * 30)])
    with pytest.raises(ValueError, match=r"embeddings of 32; lower evaluation.max_tokens to 12 or less or take"):
        CausalLM(tiny_model("gpt2", n_positions=32)).check_length(20, 40, knob="evaluation.max_tokens")
    with pytest.raises(ValueError, match="token ids from 7 to 5000"):
        stream.submit([*good, Request("p", 0, False, (7, 5000))])
    assert stream.progress.waiting == 0
    stream.submit([Request("p", 0, False, (7,) * 20)])
    assert len(drain(stream)) == 1


def test_sliding_windows_must_hold_the_whole_row():
    model = tiny_model("qwen2", use_sliding_window=True, sliding_window=24, max_window_layers=0)
    assert set(model.config.layer_types) == {"sliding_attention"}
    with pytest.raises(ValueError, match=r"sliding_window of 24.*another model"):
        sampler(model).submit([Request("p", 0, False, (7,) * 20)])
    eos = [generate(model, requests(["12+7"])[0].prompt_ids, 12)[6]]
    rollouts = roll(model, requests(TEXTS[:4:3]), temperature=0.0, eos_token_ids=eos)
    for request in requests(TEXTS[:4:3]):
        assert list(rollouts[request.problem_id, 0].token_ids) == generate(model, request.prompt_ids, 12, eos)


def test_models_without_a_plain_key_value_cache_are_refused():
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(ValueError, match=r"MambaForCausalLM keeps a state.*another model"):
        sampler(model)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"max_tokens": 0},
        {"batch_size": 0},
        {"top_p": 0.0},
        {"top_k": -1},
        {"stop": [""]},
        {"stop": "text"},
        {"eos_token_ids": []},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sampler(tiny_model("gpt2"), **wrong)


def test_nan_logits_are_named():
    model = tiny_model("qwen2")
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    stream = sampler(model)
    stream.submit(requests(["12+7"]))
    with pytest.raises(FloatingPointError, match=r"token 1 of a rollout of problem '12\+7'.*NaN"):
        stream.poll()


def test_running_out_of_memory_names_the_knob():
    def out_of_memory(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = tiny_model("qwen2")
    model.model.layers[0].mlp.register_forward_pre_hook(out_of_memory)
    stream = sampler(model, batch_size=3)
    stream.submit(requests(["12+7"]))
    with pytest.raises(MemoryError, match=r"lower sampling\.batch_size or sampling\.max_tokens"):
        stream.poll()
