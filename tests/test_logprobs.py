"""Log-probs for training: shared prompts, micro-batches and chunks change nothing but the cost."""

import math

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

import guide_rl.logprobs
from guide_rl.logprobs import PASS_TOKENS, Row, Scorer, plan_microbatches, score_rows, sharing_is_exact, unpad
from guide_rl.policy import Policy, disable_dropout

ROWS = [
    Row([5, 6, 7, 8, 9], [10, 11, 12]),
    Row([5, 6, 7, 8, 9], [13]),
    Row([20, 21], [22, 23, 24, 25, 26, 27, 28]),
    Row([5, 6, 7, 8, 9], [30, 31, 32, 33]),
    Row([40, 41, 42], [43, 44]),
]


def policy(name: str) -> Policy:
    model = tiny_model(name)
    disable_dropout(model)
    return Policy(model, tiny_tokenizer())


def own_logprobs(policy: Policy, row: Row, temperature: float) -> torch.Tensor:
    """The textbook way: one row, no padding, log_softmax of the model's own logits."""
    ids = torch.tensor([[*row.prompt_ids, *row.token_ids]])
    logits = policy.model(ids).logits[0, len(row.prompt_ids) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, ids[0, len(row.prompt_ids) :, None])[:, 0]


@pytest.mark.parametrize("share_prompts", [True, False])
@pytest.mark.parametrize("name", ["qwen2", "llama", "gpt2"])
def test_scores_are_the_models_own_logprobs_at_the_temperature(name, share_prompts):
    tiny = policy(name)
    scores = score_rows(tiny, ROWS, temperature=0.7, share_prompts=share_prompts)
    for row, scored in zip(ROWS, unpad(scores.logprobs_NT, ROWS), strict=True):
        torch.testing.assert_close(scored, own_logprobs(tiny, row, 0.7), atol=2e-5, rtol=1e-5)
    assert scores.mask_NT.sum(1).tolist() == [len(row.token_ids) for row in ROWS]
    assert (scores.logprobs_NT[~scores.mask_NT] == 0).all()


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_gradients_flow_through_shared_prompts_as_through_whole_rows(name):
    gradients = []
    for share_prompts in (True, False):
        tiny = policy(name)
        tiny.model.double()
        scores = score_rows(tiny, ROWS, temperature=1.3, share_prompts=share_prompts)
        weights = torch.linspace(-1, 1, scores.logprobs_NT.numel()).reshape(scores.logprobs_NT.shape)
        (scores.logprobs_NT * weights).sum().backward()
        gradients.append({n: p.grad for n, p in tiny.model.named_parameters()})
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][parameter], atol=1e-5, rtol=1e-4)


def test_entropies_are_those_of_the_distributions_that_tokens_came_from():
    tiny = policy("qwen2")
    scores = score_rows(tiny, ROWS, temperature=0.7, entropy=True)
    row = ROWS[2]
    ids = torch.tensor([[*row.prompt_ids, *row.token_ids]])
    probs = (tiny.model(ids).logits[0, len(row.prompt_ids) - 1 : -1] / 0.7).softmax(-1)
    expected = torch.tensor([-sum(p * math.log(p) for p in step.tolist() if p > 0) for step in probs])
    torch.testing.assert_close(scores.entropies_NT[2, :7], expected, atol=1e-4, rtol=1e-4)


def test_chunks_of_logits_change_neither_scores_nor_gradients(monkeypatch):
    results = []
    for limit in (2**26, 300):  # 300 logits are about three tokens of this vocabulary
        monkeypatch.setattr(guide_rl.logprobs, "LOGITS_AT_ONCE", limit)
        tiny = policy("llama")
        scores = score_rows(tiny, ROWS, temperature=1.0, entropy=True)
        (scores.logprobs_NT.sum() + scores.entropies_NT.sum()).backward()
        results.append((scores.logprobs_NT.detach(), tiny.head.weight.grad))
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share_prompts", [True, False])
@pytest.mark.parametrize("tokens", [1, 8, 20, 1000])
def test_microbatches_hold_every_row_once_within_the_token_budget(tokens, share_prompts):
    plan = plan_microbatches(ROWS, tokens, share_prompts=share_prompts)
    assert sorted(i for part in plan for i in part) == list(range(len(ROWS)))
    for part in plan:
        prompts = [tuple(ROWS[i].prompt_ids) for i in part]
        prompts = list(set(prompts)) if share_prompts else prompts
        padded = len(prompts) * max(map(len, prompts)) + len(part) * max(len(ROWS[i].token_ids) for i in part)
        assert padded <= tokens or len(part) == 1


def test_a_microbatch_holds_no_more_padding_than_a_pass_costs():
    rows = [Row([1, 2, 3], [7] * (1 + 37 * i % 128)) for i in range(128)]
    plan = plan_microbatches(rows, 16384)
    assert 1 < len(plan) < 16
    for part in plan:
        lengths = [len(rows[i].token_ids) for i in part]
        assert len(part) * max(lengths) - sum(lengths) <= PASS_TOKENS


def test_scoring_without_gradient_returns_rows_in_order_whatever_the_microbatches():
    tiny = policy("qwen2")
    one = Scorer(temperature=1.0, tokens_per_microbatch=10_000, share_prompts=True).score_all(tiny, ROWS)
    many = Scorer(temperature=1.0, tokens_per_microbatch=12, share_prompts=True).score_all(tiny, ROWS)
    for row, a, b in zip(ROWS, one, many, strict=True):
        assert len(a) == len(row.token_ids)
        assert not a.requires_grad
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["qwen2", "llama", "gpt2"])
def test_common_architectures_share_prompts(name):
    assert sharing_is_exact(policy(name))


def test_a_head_that_scales_its_logits_is_refused():
    tiny = policy("llama")
    forward = tiny.model.forward

    def scaled(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits * 0.5
        return output

    tiny.model.forward = scaled
    with pytest.raises(ValueError, match="differ from its own logits"):
        sharing_is_exact(tiny)


def test_dropout_is_off_whatever_the_mode():
    model = tiny_model("gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5)
    disable_dropout(model)
    ids = torch.arange(5)[None]
    assert torch.equal(model.train()(ids).logits, model.eval()(ids).logits)
