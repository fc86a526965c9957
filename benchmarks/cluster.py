"""Engine verl on this machine's CPU: what guided rollouts add to a step, and how many rollouts one driver process takes in.

`python benchmarks/cluster.py overhead` runs the real loop, Ray, FSDP2 on two ranks and two rollout servers (tests/verl_cpu),
started once; variants of the recipe take steps in turns. `python benchmarks/cluster.py driver` lets Ray actors answer at once.
Processor seconds are of all processes of the run, which other programs on the machine hardly change; wall seconds they do.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from contestants import HashGrader, Settings, guide_recipe, write_inputs, write_tokenizer

RANKS = 2
MARK = "GUIDE_BENCHMARK"
TESTS = Path(__file__).resolve().parent.parent / "tests"


def prepare() -> str:
    """The environment of all processes of the run; returns what marks them. Before verl and Ray are imported."""
    sys.path.insert(0, str(TESTS))
    from verl_cpu.settings import environment

    mark = uuid.uuid4().hex
    # The servers' batches are full before they start: unlike vLLM's they take nobody in later.
    os.environ |= environment() | {MARK: mark, "OMP_WAIT_POLICY": "PASSIVE", "VERL_TEST_GATHER_SECONDS": "0.2"}
    return f"{MARK}={mark}"


def cpu_seconds(mark: str) -> float:
    """Processor seconds of all processes of the run that live, this one too."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.name == str(os.getpid()) or mark.encode() in (process / "environ").read_bytes():
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:  # it has just ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------- guided rollouts


def overhead(rounds: int, out: Path | None) -> None:
    """As many rollouts of as many tokens in every variant: 8 plain ones a problem, or 4 plain and 4 guided ones."""
    mark = prepare()
    from rich.console import Console
    from verl_cpu.settings import settings as verl_settings

    from guide_rl.config import GuidanceConfig, ModelConfig, OptimizerConfig
    from guide_rl.progress import Progress
    from guide_rl.recipes import write_recipe
    from guide_rl.run_folder import RunFolder
    from guide_rl.trainers.trainer import Trainer
    from guide_rl.trainers.verl.engine import VerlEngine

    settings = Settings(lengths="full", problems=8, k=8, hidden=128, layers=4, steps=rounds + 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(settings, folder)
        shorten_guidance(folder / "problems.jsonl")
        plain = guide_recipe(settings, folder, "never")
        plain = replace(
            plain,
            engine="verl",
            verl={f"+{key}": value for key, value in verl_settings(RANKS).items()},
            model=ModelConfig(path=str(folder / "model"), dtype="float32"),
            prompts=replace(plain.prompts, max_tokens=64),
            # Servers that are full at any time: half of the rollouts at once, so that every variant samples in two waves.
            sampling=replace(plain.sampling, batch_size=settings.problems * settings.k // 2 // RANKS),
            optimizer=OptimizerConfig(tokens_per_microbatch=settings.microbatch_tokens),
        )
        guided = replace(
            plain,
            sampling=replace(plain.sampling, k=settings.k // 2),
            guidance=GuidanceConfig(trigger="always", k_guided=settings.k // 2),
        )
        variants = {
            "8 plain": plain,
            "4 plain, 4 guided": guided,
            "the same, log_ratios: false": replace(guided, log_ratios=False),
        }
        run = RunFolder.create(plain.run, write_recipe(plain))
        progress = Progress(plain.steps, console=Console(quiet=True))
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
        with VerlEngine(plain, run, None) as engine:
            trainer = Trainer(guided, run, None, progress, HashGrader(0.0), engine)
            for n in range(rounds + 1):
                for variant, recipe in variants.items():
                    trainer.recipe = engine.recipe = engine._update.recipe = recipe
                    turns[variant].append(take_step(trainer, n + 1, mark))
                    print(n, variant, json.dumps(turns[variant][-1]), file=sys.stderr, flush=True)
        timed = {variant: taken[1:] for variant, taken in turns.items()}
    if out is not None:
        out.write_text(json.dumps(timed, indent=1) + "\n")
    print(table(timed))


def shorten_guidance(path: Path) -> None:
    """Guidance of two tokens: hardly any token more than without."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"guidance": row["guidance"][:2]}) + "\n" for row in rows))


def take_step(trainer: Any, step: int, mark: str) -> dict[str, float]:
    """A step of the loop, without logs: seconds, processor seconds and tokens."""
    before, started = cpu_seconds(mark), time.perf_counter()
    groups = trainer.sample(step)
    sampled, cpu_sampled = time.perf_counter() - started, cpu_seconds(mark) - before
    updated = trainer.engine.update(groups, step)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    return {
        "seconds": time.perf_counter() - started,
        "cpu": cpu_seconds(mark) - before,
        "cpu/sampling": cpu_sampled,
        "sampling": sampled,
        **{name.partition("/")[2]: value for name, value in updated.timings.items()},
        "rollouts": len(rollouts),
        "tokens": sum(rollout.tokens for rollout in rollouts),
        "prompt_tokens": sum(len(rollout.prompt_ids) for rollout in rollouts),
        "optimizer_steps": updated.metrics["optimizer_steps"],
    }


def table(timed: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: medians, and the median and quartiles of the ratios to the first variant of the same round."""
    base = next(iter(timed.values()))
    lines = [
        "| | rollouts | tokens | prompt tokens | s | CPU s | sampling, CPU s | update, CPU s | CPU s, ratio (quartiles) "
        "| update, CPU s, ratio (quartiles) | s, ratio (quartiles) |",
        "|" + " --- |" * 11,
    ]
    for variant, taken in timed.items():
        for turn in taken:
            turn["cpu/update"] = turn["cpu"] - turn["cpu/sampling"]
        counts = [f"{median(t[name] for t in taken):,.0f}" for name in ("rollouts", "tokens", "prompt_tokens")]
        medians = [f"{median(t[n] for t in taken):.2f}" for n in ("seconds", "cpu", "cpu/sampling", "cpu/update")]
        ratios = []
        for name in ("cpu", "cpu/update", "seconds"):
            low, middle, high = quantiles((a[name] / b[name] for a, b in zip(taken, base, strict=True)), n=4)
            ratios.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
        lines.append(f"| {' | '.join([variant, *counts, *medians, *ratios])} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------- the driver


class Answering:
    """A rollout server for Ray that answers at once, always the same; token 0 ends a rollout."""

    def __init__(self, tokens: int) -> None:
        from verl.workers.rollout.replica import TokenOutput

        self.tokens, self.made = [1 + i % 1000 for i in range(tokens - 1)] + [0], TokenOutput
        self.logprobs = [-(i % 97) / 31 - 1e-3 for i in range(tokens)]

    async def generate(self, **_: Any) -> Any:
        """One rollout."""
        return self.made(
            token_ids=self.tokens, log_probs=self.logprobs, stop_reason="completed", extra_fields={"global_steps": 0}
        )


def driver(requests: int, tokens: int, rounds: int) -> None:
    """Rollouts a second and processor seconds of this process a rollout, through verl's client and load balancer."""
    prepare()
    import ray
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer
    from verl.workers.rollout.llm_server import LLMServerClient
    from verl.workers.rollout.router import GlobalRequestLoadBalancer

    from guide_rl.samplers.rollout_text import RolloutText
    from guide_rl.trainers.verl.sampler import Loop, ServerSampler
    from guide_rl.types import Request

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    servers = {f"{i}": ray.remote(Answering).options(max_concurrency=1000).remote(tokens) for i in range(RANKS)}
    balancer = ray.remote(GlobalRequestLoadBalancer).options(max_concurrency=1000).remote(servers)
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"name": "vllm", "full_determinism": False}}})
    client, loop = LLMServerClient(config, load_balancer_handle=balancer), Loop()
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    text = RolloutText(tokenizer, eos_token_ids={tokenizer.eos_token_id})
    sampler = ServerSampler(client, loop, text, eos_token_ids={0}, temperature=1.0, max_tokens=tokens)
    asked = [Request(f"problem {i // 8}", i % 8, False, tuple(range(1, 201)), (0, 1)) for i in range(requests)]

    def everything() -> None:
        sampler.submit(asked)
        found = 0
        while rollouts := sampler.poll():
            found += len(rollouts)
        assert found == requests

    everything()
    taken = [measured(everything) for _ in range(rounds)]
    loop.close()
    ray.shutdown()
    for name, values in {
        "rollouts a second": [requests / seconds for seconds, _ in taken],
        "processor ms of the driver a rollout": [1e3 * cpu / requests for _, cpu in taken],
    }.items():
        print(f"{name}: median {median(values):.3g}, from {min(values):.3g} to {max(values):.3g}")


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and processor seconds of this process."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - cpu


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["overhead", "driver"])
    parser.add_argument("--rounds", type=int, default=12, help="timed rounds after one of warm-up")
    parser.add_argument("--requests", type=int, default=2000, help="rollouts in flight at once (driver)")
    parser.add_argument("--tokens", type=int, default=1000, help="tokens of a rollout (driver)")
    parser.add_argument("--out", type=Path, help="where every turn is written as JSON (overhead)")
    given = parser.parse_args(argv)
    if given.what == "overhead":
        overhead(given.rounds, given.out)
    else:
        driver(given.requests, given.tokens, given.rounds)


if __name__ == "__main__":
    main()
