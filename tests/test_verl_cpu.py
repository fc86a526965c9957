"""The calls of verl that the verl engine rests on, on two CPU ranks: real Ray, FSDP2 over gloo, rollout servers."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from verl_cpu.marked import processes
from verl_cpu.settings import environment

pytestmark = pytest.mark.cluster
SECONDS = 240


def round_trip(folder: Path, *overrides: str, **variables: str) -> dict[str, Any]:
    """The report of `verl_cpu.round_trip`; no process of it is left."""
    mark = f"VERL_TEST_RUN={uuid.uuid4().hex}"
    name, value = mark.split("=")
    run = subprocess.run(
        [sys.executable, "-m", "verl_cpu.round_trip", str(folder), *overrides],
        env={**os.environ, **environment(), **variables, name: value},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    assert not processes(mark)
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return round_trip(tmp_path_factory.mktemp("verl"))


def test_sampler_and_trainer_agree_before_and_after_an_update(report: dict[str, Any]) -> None:
    assert report["before"] < 1e-5
    assert report["moved"] > 0.1
    assert report["after"] < 1e-5
    assert report["steps"] == [0, 1]


def test_the_reference_policy_stays(report: dict[str, Any]) -> None:
    assert report["reference"] < 1e-5


def test_a_server_that_keeps_its_first_weights_disagrees_with_the_trainer(tmp_path: Path) -> None:
    """One server for both ranks, here."""
    size = "actor_rollout_ref.rollout.tensor_model_parallel_size=2"
    stale = round_trip(tmp_path, size, VERL_TEST_STALE_WEIGHTS="1")
    assert stale["before"] < 1e-5
    assert stale["after"] > 0.1


def test_tokens_follow_from_the_seed_alone(report: dict[str, Any]) -> None:
    assert report["tokens_alone"] == report["tokens"][0]
    assert report["greedy"][0] == report["greedy"][1] != report["tokens"]


def test_sleeping_servers_refuse_requests(report: dict[str, Any]) -> None:
    assert "update_weights" in report["asleep"]


def test_a_mini_batch_takes_its_rows_from_every_rank(report: dict[str, Any]) -> None:
    """Rank 0 holds the rows 0 and 1, rank 1 the rows 2 and 3; each mini-batch is one row of each."""
    assert report["actor"]["rows"] == [[0], [2], [1], [3]]
    assert len(report["actor"]["grad_norm"]) == len(report["critic"]["grad_norm"]) == 2


def test_an_update_of_the_critic_moves_its_values(report: dict[str, Any]) -> None:
    assert min(report["critic"]["grad_norm"]) > 0
    assert report["values_moved"] > 1e-6


def test_values_cover_prompt_and_response(report: dict[str, Any]) -> None:
    assert report["values"] == [15, 17, 14, 16]


def test_a_checkpoint_brings_the_weights_back(report: dict[str, Any]) -> None:
    assert report["unsaved"] > 0.1
    assert report["loaded"] == report["after"]
