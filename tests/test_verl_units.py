"""The parts of engine verl, without Ray: rows, losses, the sampler, and the update beside the local engine's."""

import asyncio
import itertools
import json
import pickle
import random
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from loss_batches import FULL, PAPER
from tiny_models import tiny_tokenizer
from torch import Tensor
from toy_run import linked, trainer, write_inputs

from guide_rl.equations.losses import LossSums, aggregation_weights, policy_loss, value_loss_NT
from guide_rl.equations.ratios import Logprobs
from guide_rl.logprobs import Row
from guide_rl.policy import naming_model_path
from guide_rl.run_folder import RunFolder
from guide_rl.samplers.request_seed import request_seed
from guide_rl.samplers.rollout_text import RolloutText
from guide_rl.trainers.engine import EngineLost
from guide_rl.trainers.export import export_checkpoint
from guide_rl.trainers.minibatches import build_minibatches
from guide_rl.trainers.verl import private
from guide_rl.trainers.verl.loss import actor_loss, critic_loss
from guide_rl.trainers.verl.rows import batch_of, idle_row, layout, of_rollouts
from guide_rl.trainers.verl.sampler import Loop, ServerSampler
from guide_rl.trainers.verl.update import WorkersUpdate, _take_first_pass
from guide_rl.types import Request

with_verl = [
    pytest.mark.cluster,  # importing verl takes many seconds, and warns
    pytest.mark.filterwarnings("ignore"),
]


def needs_verl(test):
    """Marks of a test that imports verl."""
    for mark in with_verl:
        test = mark(test)
    return pytest.mark.usefixtures("verl")(test)


@pytest.fixture(scope="module")
def verl():
    return pytest.importorskip("verl", reason="verl is not installed: pip install 'guide-rl[verl]'")


# ---------------------------------------------------------------------- the version


def test_the_installed_verl_is_the_one_that_the_private_pieces_were_written_for():
    try:
        found = version("verl")
    except PackageNotFoundError:
        pytest.skip("verl is not installed: pip install 'guide-rl[verl]'")
    assert found == private.VERSION
    private.check_version()


def test_another_verl_or_none_is_refused(monkeypatch):
    monkeypatch.setattr(private, "version", lambda name: "0.10.0")
    with pytest.raises(ValueError, match=rf"needs verl {private.VERSION}, and verl 0\.10\.0 is installed: pip install"):
        private.check_version()

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(private, "version", missing)
    with pytest.raises(ValueError, match=r"and none is installed: pip install 'guide-rl\[verl\]'"):
        private.check_version()


# ---------------------------------------------------------------------- checkpoints


@pytest.fixture
def saved(tmp_path):
    """What a checkpoint of two ranks holds."""
    folder = tmp_path / "run/checkpoints/step-000002"
    for part in ("actor", "critic"):
        (folder / part).mkdir(parents=True)
        (folder / part / "fsdp_config.json").write_text("{}")
        for kind, rank in itertools.product(private.SHARD_KINDS, range(2)):
            torch.save(torch.zeros(500), folder / part / f"{kind}_world_size_2_rank_{rank}.pt")
    (folder / "engine.json").write_text("{}")
    return folder


def test_a_whole_checkpoint_of_as_many_ranks_is_taken(saved):
    private.check_shards(saved, 2, critic=True)
    for file in (saved / "critic").iterdir():
        file.unlink()
    private.check_shards(saved, 2, critic=False)


@pytest.mark.parametrize("ranks", [1, 4])
def test_another_number_of_ranks_is_refused_before_anything_starts(saved, ranks):
    with pytest.raises(
        ValueError, match=rf"2 ranks; .*n_gpus_per_node is {ranks}: .*model\.path=FOLDER, after `guide export"
    ):
        private.check_shards(saved, ranks, critic=True)


@pytest.mark.parametrize(
    "name", ["engine.json", "actor/optim_world_size_2_rank_1.pt", "critic/model_world_size_2_rank_0.pt"]
)
@pytest.mark.parametrize("cut", [True, False], ids=["cut off", "missing"])
def test_a_file_of_a_checkpoint_that_is_missing_or_cut_off_is_named(saved, name, cut):
    path = saved / name
    if cut and path.suffix == ".pt":
        path.write_bytes(path.read_bytes()[:-300])
    else:
        path.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing.*: remove that checkpoint, or restore it, and resume"):
        private.check_shards(saved, 2, critic=True)


def test_shards_are_no_model_to_start_from_and_the_error_says_how_they_become_one(saved):
    export = f"give model.path=FOLDER, after `guide export {saved} FOLDER`"
    for path in (saved, saved.parent.parent):
        with pytest.raises(FileNotFoundError, match=export), naming_model_path(str(path)):
            pass
    run = RunFolder(saved.parent.parent)
    run.write_recipe("seed: 1\n")
    with pytest.raises(ValueError, match=f"from its weights with model.path=FOLDER, after `guide export {saved}"):
        run.check_recipe("seed: 2\n")


def test_shards_that_cannot_be_merged_are_an_error_of_a_line_and_leave_no_half_model(saved, tmp_path, monkeypatch):
    def fails(command, **_):
        Path(command[-1].partition("=")[2], "half").write_text("")
        return SimpleNamespace(returncode=1, stderr="Traceback\n  File x\nOSError: cut off\n")

    monkeypatch.setattr(private.subprocess, "run", fails)
    with pytest.raises(ValueError, match=r"failed: OSError: cut off$"):
        export_checkpoint(saved, tmp_path / "model")
    assert not list(tmp_path.glob("*model*"))


# ---------------------------------------------------------------------- the sampler

TOKENIZER = tiny_tokenizer()
EOS = TOKENIZER.eos_token_id


class Servers:
    """A client whose servers answer what they are told to, when they are told to."""

    def __init__(self, **said: Any) -> None:
        self.said, self.asked = {"token_ids": ids("ab"), "log_probs": None, **said}, []
        self.held: dict[int, asyncio.Event] = {}

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        self.asked.append((request_id, prompt_ids, sampling_params))
        if prompt_ids[0] in self.held:
            await self.held[prompt_ids[0]].wait()
        await asyncio.sleep(0)
        if "error" in self.said:
            raise self.said["error"]
        tokens = self.said["token_ids"]
        logprobs = [-0.25 * (i + 1) for i in range(len(tokens))]
        return SimpleNamespace(
            token_ids=list(tokens),
            log_probs=logprobs[: self.said["log_probs"]] if self.said.get("some", True) else None,
        )


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def request(problem: str = "p", index: int = 0, *, guided: bool = False, prompt: str = "?", seed: int = 1) -> Request:
    return Request(problem, index, guided, tuple(ids(prompt)), (0, seed))


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def sampler_of(client: Any, loop: Loop, *, stop: tuple[str, ...] = (), **settings: Any) -> ServerSampler:
    text = RolloutText(TOKENIZER, eos_token_ids={EOS}, stop=stop)
    given = {"eos_token_ids": {EOS}, "temperature": 0.5, "max_tokens": 8} | settings
    return ServerSampler(client, loop, text, **given)


def drain(sampler: ServerSampler) -> list:
    found = []
    while rollouts := sampler.poll():
        found += rollouts
    return found


def test_every_request_comes_back_once_and_an_idle_sampler_gives_nothing(loop):
    sampler = sampler_of(Servers(), loop)
    assert sampler.poll() == []
    requests = [request(f"p{i % 3}", i) for i in range(20)]
    sampler.submit(requests[:12])
    sampler.submit(requests[12:])
    found = drain(sampler)
    assert sorted((r.problem_id, r.index) for r in found) == sorted((r.problem_id, r.index) for r in requests)
    assert sampler.poll() == []


def test_rollouts_come_out_as_servers_finish_them_whatever_was_asked_first(loop):
    client = Servers()
    slow, fast = request("slow", prompt="s"), request("fast", prompt="f")
    client.held = {slow.prompt_ids[0]: asyncio.Event()}
    sampler = sampler_of(client, loop)
    sampler.submit([slow, fast])
    assert [r.problem_id for r in sampler.poll()] == ["fast"]
    sampler.submit([request("later", prompt="l")])
    assert [r.problem_id for r in sampler.poll()] == ["later"]
    loop._loop.call_soon_threadsafe(client.held[slow.prompt_ids[0]].set)
    assert [r.problem_id for r in sampler.poll()] == ["slow"]


def test_a_rollout_is_what_the_server_said(loop):
    sampler = sampler_of(Servers(token_ids=ids("ab")), loop)
    asked = request("p", 3, guided=True, prompt="why")
    sampler.submit([asked])
    (rollout,) = drain(sampler)
    assert (rollout.problem_id, rollout.index, rollout.guided) == ("p", 3, True)
    assert rollout.prompt_ids == asked.prompt_ids
    assert (rollout.token_ids, rollout.text) == (tuple(ids("ab")), "ab")
    assert rollout.logprobs == (-0.25, -0.5)
    assert rollout.entropy == 0.375


@pytest.mark.parametrize(
    ("tokens", "finish", "text"),
    [
        ([*ids("ab"), EOS], "eos", "ab"),
        ([*ids("abcdefg"), EOS], "eos", "abcdefg"),
        (ids("abcdefgh"), "length", "abcdefgh"),
        (ids("ab##"), "stop", "ab"),
        (ids("abcdef##"), "stop", "abcdef"),
        (ids("abc"), "length", "abc"),
    ],
    ids=["eos", "eos at the limit", "limit", "stop string", "stop string at the limit", "limit of the server"],
)
def test_the_end_is_an_eos_token_or_a_stop_string_which_is_cut_or_the_limit(loop, tokens, finish, text):
    sampler = sampler_of(Servers(token_ids=tokens), loop, stop=("##",))
    sampler.submit([request()])
    (rollout,) = drain(sampler)
    assert (rollout.finish, rollout.text) == (finish, text)
    assert rollout.token_ids == tuple(tokens)


def test_an_error_of_a_server_is_raised_as_what_it_means(loop):
    sampler = sampler_of(Servers(error=OSError("gone")), loop, explained=lambda error: ValueError(f"server {error}"))
    sampler.submit([request()])
    with pytest.raises(ValueError, match="server gone"):
        sampler.poll()
    assert sampler.poll() == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"log_probs": 1}, "2 tokens with 1 log-probs for problem 'p'"),
        ({"some": False}, "2 tokens with 0 log-probs for problem 'p'"),
        ({"token_ids": []}, "0 tokens with 0 log-probs for problem 'p'"),
    ],
    ids=["fewer", "none", "no tokens"],
)
def test_an_answer_without_a_log_prob_for_each_token_is_refused(loop, said, message):
    sampler = sampler_of(Servers(**said), loop)
    sampler.submit([request()])
    with pytest.raises(EngineLost, match=message):
        sampler.poll()


def test_requests_of_one_prompt_share_a_server_and_others_do_not(loop):
    client = Servers()
    sampler = sampler_of(client, loop)
    sampler.submit(
        [request(p, i, guided=g, seed=s) for s in (1, 2) for p in "ab" for g in (False, True) for i in (0, 1)]
    )
    drain(sampler)
    names = [name for name, _, _ in client.asked]
    assert names[::2] == names[1::2]
    assert len(set(names)) == 8


def test_servers_are_told_the_recipes_settings(loop):
    client = Servers()
    sampler = sampler_of(client, loop, stop=("##",), top_p=0.9)
    sampler.submit([request(prompt="why")])
    drain(sampler)
    (_, prompt, params) = client.asked[0]
    assert prompt == ids("why")
    assert params == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": -1,
        "max_tokens": 8,
        "logprobs": True,
        "stop_token_ids": [EOS],
        "stop": ["##"],
        "skip_special_tokens": False,
    }


def test_seeds_follow_from_the_request_alone_and_are_sent_where_asked_for_with_a_name_for_each(loop):
    client = Servers()
    sampler = sampler_of(client, loop, seeded=True, top_k=5)
    requests = [request(p, i, guided=g) for p in "ab" for g in (False, True) for i in (0, 1)]
    sampler.submit(requests)
    drain(sampler)
    seeds = [params["seed"] for _, _, params in client.asked]
    assert seeds == [request_seed(each) for each in requests]
    assert len(set(seeds)) == len(requests)
    assert client.asked[0][2]["top_k"] == 5
    assert len({name for name, _, _ in client.asked}) == len(requests)


# ---------------------------------------------------------------------- rows


@needs_verl
@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 8),
    st.lists(st.lists(st.integers(1, 40), max_size=11), min_size=1, max_size=5),
)
def test_mini_batches_keep_their_rows_on_whatever_ranks(ranks, lengths):
    assume(any(lengths))
    batches = [[Row((1,), (2,) * length) for length in each] for each in lengths]
    order, size = layout(batches, ranks)
    most, here = max(map(len, batches)), size // ranks
    assert size % ranks == 0
    assert most <= size < most + ranks
    of_rank = [order[i : i + len(order) // ranks] for i in range(0, len(order), len(order) // ranks)]
    assert [len(each) for each in of_rank] == [here * len(batches)] * ranks
    first = 0
    for m, rows in enumerate(batches):
        taken = [place for each in of_rank for place in each[m * here : (m + 1) * here]]
        assert sorted(place for place in taken if place is not None) == list(range(first, first + len(rows)))
        assert taken.count(None) == size - len(rows)
        first += len(rows)


@needs_verl
def test_ranks_get_nearly_as_many_tokens_wherever_the_long_rows_stand():
    for long in itertools.combinations(range(6), 2):
        rows = [Row((1,), (2,) * (400 if i in long else 10)) for i in range(6)]
        order, _ = layout([rows], 2)
        assert len({*order[:3]} & {*long}) == 1


@needs_verl
def test_a_batch_says_of_its_rows_what_workers_read():
    rows = [Row((5, 6, 7), (8, 9)), idle_row(3)]
    values = [torch.tensor([0.5, 1.5]), torch.zeros(1)]
    batch = batch_of(rows, {"advantages": values, "guided": torch.tensor([True, False])}, {"temperature": 0.5})
    for name, row in {
        "prompts": [5, 6, 7],
        "responses": [8, 9],
        "input_ids": [5, 6, 7, 8, 9],
        "position_ids": [0, 1, 2, 3, 4],
        "response_mask": [1, 1],
        "loss_mask": [1, 1],
        "advantages": [0.5, 1.5],
    }.items():
        assert batch[name].unbind()[0].tolist() == row, name
    assert batch["guided"].tolist() == [True, False]
    assert batch["temperature"] == 0.5
    assert batch.batch_size == torch.Size([2])
    assert len(batch["input_ids"].unbind()[1]) == 128

    output = {"values": jagged([torch.arange(5.0), torch.arange(128.0)])}
    assert [each.tolist() for each in of_rollouts(output, "values", batch)] == [[2, 3], [126]]


def jagged(tensors: list[Tensor]) -> Tensor:
    """A nested tensor through which gradients flow."""
    lengths = torch.tensor([0, *map(len, tensors)])
    return torch.nested.nested_tensor_from_jagged(torch.cat(tensors), offsets=lengths.cumsum(0))


# ---------------------------------------------------------------------- losses


class Drawn:
    """Rows of a mini-batch, drawn at random, float64, as the workers get them, and padded as `policy_loss` takes them."""

    FIELDS = ("old_log_probs", "advantages", "old_plain_log_probs", "ref_log_prob", "values", "returns")

    def __init__(self, seed: int, junk: int = 0) -> None:
        rng, torch_rng = random.Random(seed), torch.Generator().manual_seed(seed)

        def drawn(length: int) -> Tensor:
            return torch.rand(length, generator=torch_rng, dtype=torch.float64) * 2 - 2

        lengths = [rng.randint(1, 9) for _ in range(7)]
        self.real = len(lengths)
        self.rows = [Row((1,) * rng.randint(1, 5), (2,) * length) for length in lengths]
        self.new = [drawn(length).requires_grad_() for length in lengths]
        self.columns = {name: [drawn(length) for length in lengths] for name in self.FIELDS}
        self.columns["advantages"] = [drawn(length) + 1 for length in lengths]
        self.guided = torch.tensor([i % 3 == 2 for i in range(self.real)])
        lengths_N = torch.tensor(lengths)
        self.weights = aggregation_weights(
            "sequence_mean", lengths_N, torch.full_like(lengths_N, 4), groups=2, max_tokens=9
        )
        for _ in range(junk):
            self.rows.append(idle_row(0))
            self.new.append(torch.full((1,), 3.0, dtype=torch.float64, requires_grad=True))
            for values in self.columns.values():
                values.append(torch.full((1,), float("nan"), dtype=torch.float64))
            self.guided = torch.cat([self.guided, torch.tensor([len(self.rows) % 2 == 0])])
            self.weights = torch.cat([self.weights, torch.zeros(1, dtype=torch.float64)])

    def part(self, which: list[int], ranks: int) -> tuple[dict[str, Tensor], Any]:
        """Model output and data of a micro-batch: what the workers have at positions before the rollout is junk."""
        columns: dict[str, Any] = {name: [values[i] for i in which] for name, values in self.columns.items()}
        columns |= {"guided": self.guided[which], "weights": self.weights[which]}
        rows = [self.rows[i] for i in which]
        around = [
            torch.cat([torch.full((len(row.prompt_ids) - 1,), 9.0), self.new[i], torch.full((1,), 9.0)])
            for row, i in zip(rows, which, strict=True)
        ]
        output = {
            "log_probs": jagged(around),
            "values": jagged(around),
            "entropy": jagged([each**2 for each in around]),
        }
        return output, batch_of(rows, columns, {"dp_size": ranks})

    def padded(self, values: list[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(values[: self.real], batch_first=True)

    @property
    def mask(self) -> Tensor:
        return self.padded([torch.ones(len(new)) for new in self.new]).bool()

    def whole(self, settings: dict[str, Any]) -> tuple[Tensor, LossSums]:
        """`policy_loss` of all real rows at once."""
        padded, count = {name: self.padded(values) for name, values in self.columns.items()}, self.real
        new_NT = self.padded(self.new)
        return policy_loss(
            Logprobs(new_NT, padded["old_log_probs"], padded["old_plain_log_probs"]),
            padded["advantages"],
            self.guided[:count],
            self.mask,
            self.weights[:count],
            ref_NT=padded["ref_log_prob"],
            entropies_NT=new_NT**2,
            **settings,
        )

    def gradients(self, loss: Tensor) -> list[Tensor]:
        grads = torch.autograd.grad(loss, self.new, allow_unused=True)
        return [torch.zeros_like(new) if grad is None else grad for new, grad in zip(self.new, grads, strict=True)]

    def split(self, seed: int) -> list[list[int]]:
        """All rows in micro-batches, in any order."""
        rng = random.Random(seed)
        order = rng.sample(range(len(self.rows)), len(self.rows))
        cuts = sorted(rng.sample(range(1, len(order)), rng.randint(0, 4)))
        return [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True)]


SETTINGS: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "full": FULL,
    "kl of plain rows": PAPER | {"beta": 0.2},
    "entropy": PAPER | {"entropy_coef": 0.1},
    "clip guided": PAPER | {"clip_guided": True},
    "ratio plain": PAPER | {"guided_ratio": "plain"},
    "no ratio": PAPER | {"guided_ratio": "none"},
    "truncated": PAPER | {"guided_ratio": "truncated"},
    "sequence": PAPER | {"ratio_level": "sequence"},
    "gspo": PAPER | {"ratio_level": "gspo"},
    "adaptive": PAPER | {"reshape": "adaptive"},
    "static weight": PAPER | {"reshape": "static", "reshape_as": "weight"},
}


@needs_verl
@pytest.mark.parametrize("junk", [0, 3], ids=["", "with idle rows of junk"])
@pytest.mark.parametrize("name", SETTINGS)
def test_micro_batches_of_any_split_add_up_to_the_loss_of_the_mini_batch(name, junk):
    for seed in range(8):
        drawn, ranks = Drawn(seed, junk), 1 + seed % 3
        whole, sums = drawn.whole(SETTINGS[name])
        expected = drawn.gradients(whole)
        parts = [actor_loss(*drawn.part(which, ranks), settings=SETTINGS[name]) for which in drawn.split(seed)]
        loss = sum(part for part, _ in parts) / ranks  # as verl does: gradients are averaged over ranks
        assert float(loss) == pytest.approx(float(whole), abs=1e-12)
        for found, grad in zip(drawn.gradients(loss), expected, strict=True):
            assert torch.allclose(found, grad, rtol=0, atol=1e-12)
        for field in ("clipped", "clippable", "kl", "kl_tokens"):
            total = sum(said[f"sum/{field}"] for _, said in parts)
            assert total == pytest.approx(float(getattr(sums, field)), abs=1e-9), field


@needs_verl
@pytest.mark.parametrize("junk", [0, 3], ids=["", "with idle rows of junk"])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_micro_batches_add_up_to_the_critics_loss_of_the_mini_batch(clip, junk):
    for seed in range(8):
        drawn, ranks = Drawn(seed, junk), 1 + seed % 3
        tokens = sum(len(new) for new in drawn.new[: drawn.real])
        drawn.weights = torch.tensor([1 / tokens] * drawn.real + [0.0] * junk, dtype=torch.float64)
        tensors = [drawn.padded(values) for values in (drawn.new, drawn.columns["values"], drawn.columns["returns"])]
        whole_NT, free_NT = value_loss_NT(*tensors, clip), value_loss_NT(*tensors, None)
        whole = whole_NT[drawn.mask].mean()
        parts = [critic_loss(*drawn.part(which, ranks), clip=clip) for which in drawn.split(seed)]
        loss = sum(part for part, _ in parts) / ranks
        assert float(loss) == pytest.approx(float(whole), abs=1e-12)
        for found, grad in zip(drawn.gradients(loss), drawn.gradients(whole), strict=True):
            assert torch.allclose(found, grad, rtol=0, atol=1e-12)
        clipped = float((whole_NT > free_NT)[drawn.mask].double().mean())
        assert sum(said["sum/clipped"] for _, said in parts) == pytest.approx(clipped, abs=1e-9)
        assert (clipped > 0) == (clip is not None)


# ---------------------------------------------------------------------- the update beside the local engine's


class Ranks:
    """verl's worker group of one model, in this process: rank after rank, and in each micro-batches of two rows.

    As verl: a rank has a contiguous block of the rows, a mini-batch is a slice of every block, gradients are summed over
    micro-batches and averaged over ranks, the loss likewise.
    """

    def __init__(
        self, ranks: int, forward: Any, parameters: list[Tensor], optimizer: Any, max_grad_norm: float
    ) -> None:
        self.ranks, self.forward, self.parameters, self.optimizer = ranks, forward, parameters, optimizer
        self.max_grad_norm, self._dispatch_info = max_grad_norm, {}

    def _query_dispatch_info(self, mesh: str) -> list[int]:
        return list(range(self.ranks))

    def set_loss_fn(self, loss: Any) -> None:
        self.loss = pickle.loads(pickle.dumps(loss))

    def outputs(self, batch: Any) -> dict[str, Tensor]:
        said = [self.forward(row, batch["temperature"]) for row in batch["input_ids"].unbind()]
        return {name: jagged([each[name] for each in said]) for name in said[0]}

    def compute_log_prob(self, batch: Any) -> dict[str, Tensor]:
        assert len(batch) % self.ranks == 0
        with torch.no_grad():
            return self.outputs(batch)

    compute_ref_log_prob = compute_log_prob

    def infer_batch(self, batch: Any) -> Any:
        return SimpleNamespace(get=lambda: self.compute_log_prob(batch))

    def train_mini_batch(self, batch: Any) -> Any:
        return SimpleNamespace(get=lambda: self.update_actor(batch))

    def update_actor(self, batch: Any) -> Any:
        from verl.utils import tensordict_utils as tu

        said: dict[str, list[Any]] = defaultdict(list)
        blocks, here = tu.chunk_tensordict(batch, self.ranks), batch["mini_batch_size"] // self.ranks
        for _ in range(batch["epochs"]):
            for first in range(0, len(blocks[0]), here):
                self.optimizer.zero_grad()
                total = 0.0
                for block in blocks:
                    for start in range(first, first + here, 2):
                        some = list(range(start, min(start + 2, first + here)))
                        data = tu.index_select_tensor_dict(block, some)
                        tu.assign_non_tensor(data, dp_size=self.ranks)
                        loss, metrics = self.loss(self.outputs(data), data)
                        (loss / self.ranks).backward()
                        total += float(loss.detach()) / self.ranks
                        for name, value in metrics.items():
                            said[name].append(value)
                said["loss"].append(total)
                said["grad_norm"].append(float(torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)))
                self.optimizer.step()
        return tu.get_tensordict({"none": torch.zeros(1)}, {"metrics": dict(said)})


def log_probs_of(model: Any) -> Any:
    """Token ids, temperature -> log-prob of the next token and entropy at every position; the last has none."""

    def forward(ids_L: Tensor, temperature: float) -> dict[str, Tensor]:
        scores_LV = (model(ids_L[None]).logits[0] / temperature).log_softmax(-1)
        next_L = scores_LV[:-1].gather(-1, ids_L[1:, None])[:, 0]
        return {
            "log_probs": torch.cat([next_L, torch.full((1,), 9.0)]),
            "entropy": -(scores_LV.exp() * scores_LV).sum(-1),
        }

    return forward


def values_of(critic: Any) -> Any:
    """Token ids -> the value at every position."""

    def forward(ids_L: Tensor, temperature: float) -> dict[str, Tensor]:
        return {"values": critic.head(critic.policy.backbone(input_ids=ids_L[None]).last_hidden_state[0])[:, 0]}

    return forward


def workers_update(local: Any, ranks: int, monkeypatch: pytest.MonkeyPatch) -> WorkersUpdate:
    """The update of engine verl on the models and optimizers of a local engine."""
    recipe, update = local.recipe, local.engine.policy_update
    most = recipe.optimizer.max_grad_norm
    bare = SimpleNamespace(
        actor_rollout_wg=Ranks(ranks, log_probs_of(update.policy.model), update.parameters, update.optimizer, most),
        get_llm_client=lambda: None,
    )
    if update.reference is not None:
        bare.ref_policy_wg = Ranks(ranks, log_probs_of(update.reference._copied.model), [], None, most)
    if (critic := update.critic) is not None:
        bare.critic_wg = Ranks(ranks, values_of(critic), critic.parameters, critic.optimizer, most)
    monkeypatch.setattr(private, "make_workers", lambda config: bare)
    workers = private.Workers(
        None, temperature=recipe.sampling.temperature, idle_token=0, epochs=recipe.optimizer.epochs
    )
    return WorkersUpdate(recipe, workers, local.engine.prompt_ids)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


MINI = "optimizer.problems_per_minibatch=2"
ONE = "optimizer.problems_per_minibatch=1"
PPO = ("loss.advantages=gae", "loss.filter_uniform=false", "critic.learning_rate=0.01")
SWITCHES = {
    "Guide-GRPO": (),
    "temperature": ("sampling.temperature=0.7",),
    "mini-batches": (MINI,),
    "mini-batches of one problem": (ONE,),
    "uniform groups": (MINI, "loss.filter_uniform=false"),
    "uniform mini-batches": (ONE, "loss.filter_uniform=false", "guidance.trigger=never"),
    "ratio plain": ("loss.guided_ratio=plain", MINI),
    "ratio none": ("loss.guided_ratio=none",),
    "ratio truncated": ("loss.guided_ratio=truncated", "loss.ratio_cap=1.1"),
    "ratio of sequences": ("loss.ratio_level=sequence",),
    "sampler's log-probs": ("loss.old_logprobs=sampler",),
    "KL": ("loss.beta=0.3",),
    "KL of all rows": ("loss.beta=0.3", "loss.kl_rows=all"),
    "entropy": ("loss.entropy_coef=0.1",),
    "reshape static": ("loss.reshape=static",),
    "reshape adaptive, as weight": ("loss.reshape=adaptive", "loss.reshape_as=weight"),
    "clip guided": ("loss.clip_guided=true",),
    "keep successful": ("guidance.keep_guided=successful",),
    "token mean": ("loss.aggregation=token_mean", MINI),
    "constant": ("loss.aggregation=constant", "loss.group_scale=size"),
    "truncated rollouts masked": ("grading.truncated=masked",),
    "correct ones only": ("loss.advantages=psr", "loss.filter_uniform=false", MINI),
    "GRPO": ("guidance.trigger=never",),
    "PPO": (*PPO, "guidance.trigger=never"),
    "Guide-PPO": PPO,
    "Guide-PPO, mini-batches": (*PPO, MINI),
    "Guide-PPO, plain rows, warm-up": (*PPO, "critic.rows=plain", "critic.warmup_steps=1"),
    "Guide-PPO, whitened not, clipped not, KL": (*PPO, "critic.whiten=false", "critic.clip=null", "loss.beta=0.1"),
}


@needs_verl
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_the_update_is_the_local_engines_whatever_the_recipe_says(switches, inputs, tmp_path, monkeypatch):
    changes = ("optimizer.epochs=2", "optimizer.learning_rate=0.003", *switches)
    local, other = (trainer(linked(inputs, tmp_path / name), *changes) for name in ("local", "verl"))
    update = workers_update(other, 2, monkeypatch)
    triggered = 0
    for step in (1, 2):
        groups = local.sample(step)
        triggered += sum(group.triggered for group in groups)
        ours, theirs = local.engine.update(groups, step), update(groups, step)
        apart = {"mismatch"} if step == 2 else set()  # of weights that have moved alike but for rounding
        if {MINI, ONE} & {*switches}:
            apart |= {"clip_fraction", "kl"}  # means over mini-batches there, over tokens here
        left = {name: value for name, value in ours.metrics.items() if name.split("/")[0] not in apart}
        right = {name: value for name, value in theirs.metrics.items() if name.split("/")[0] not in apart}
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert right[name] == pytest.approx(value, rel=1e-5, abs=1e-6), (step, name)
        assert theirs.advantages == pytest.approx(ours.advantages, abs=1e-5)
        assert theirs.ratios.keys() == ours.ratios.keys()
        for key, values in ours.ratios.items():
            assert theirs.ratios[key] == pytest.approx(values, rel=1e-4)
    assert triggered > 0 or "guidance.trigger=never" in switches
    assert json.dumps(theirs.metrics)


@needs_verl
@pytest.mark.parametrize("ratio", ["sampling", "none"])
def test_before_the_update_only_rows_are_scored_of_which_its_first_pass_says_too_little(
    ratio, inputs, tmp_path, monkeypatch
):
    local = trainer(linked(inputs, tmp_path / "run"), f"loss.guided_ratio={ratio}")
    update = workers_update(local, 2, monkeypatch)
    scored, log_probs = [], update.workers.log_probs

    def spy(rows):
        scored.extend(rows)
        return log_probs(rows)

    monkeypatch.setattr(update.workers, "log_probs", spy)
    groups = local.sample(1)
    (batch,) = build_minibatches(groups, local.recipe, local.engine.prompt_ids)
    trained = {row.rollout.key: row.sampled for row in batch.rows if ratio == "sampling" or not row.guided}
    assert any(row.guided for row in batch.rows)
    update(groups, 1)
    left = [r for g in groups for r in g.rollouts if r.guided and r.key not in {row.rollout.key for row in batch.rows}]
    assert scored[: len(trained)] == list(trained.values())
    assert len(scored) == len(trained) + len(left)


@pytest.mark.filterwarnings("error")
def test_log_probs_of_the_first_pass_are_copied_out_of_rays_memory_which_is_read_only():
    array_T = torch.tensor([-1.0, -2.0]).numpy()
    array_T.flags.writeable = False
    rows = [SimpleNamespace(old_plain=None), SimpleNamespace(old_plain=None)]
    _take_first_pass([(2, array_T), (2, array_T * 2)], rows)
    assert rows[0].old_plain is None
    assert rows[1].old_plain.tolist() == [-1.0, -2.0]
