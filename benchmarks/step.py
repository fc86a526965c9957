"""Seconds per GRPO step of the local trainer beside TRL's GRPOTrainer, and what guidance adds to a step. CPU only.

Every contestant lives in a process of its own and takes a step when it is told to, so that contestants take turns
(A B C A B C ...) and nothing but the machine is shared. Weights, prompts, group size, rollout limit, loss and
optimizer are the same. Rewards are a hash of the rollout, so that no group is uniform and no row is skipped.
A last, untimed round counts the floating-point operations that each contestant asks for.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from contestants import EOS_IDS, Contestant, Settings, Turn, guide, matrix_rate, trl, write_inputs


def compare(settings: Settings, contestants: dict[str, Contestant]) -> dict[str, list[Turn]]:
    """Let the contestants take their turns, after one round of warm-up; the last turn of each is the counted one."""
    turns: dict[str, list[Turn]] = {name: [] for name in contestants}
    spawn = get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maker = spawn.Process(target=write_inputs, args=(settings, folder))
        maker.start()
        maker.join()
        lines, processes = {}, []
        for contestant, run in contestants.items():
            lines[contestant], theirs = spawn.Pipe()
            processes.append(spawn.Process(target=_quietly, args=(run, settings, folder, theirs), daemon=True))
            processes[-1].start()
            theirs.close()
        for line in lines.values():
            line.recv()
        for n in range(settings.steps):
            for contestant, line in lines.items():
                line.send(n == settings.steps - 1)
                turns[contestant].append(line.recv())
                print(f"{settings.lengths} {n} {contestant}: {turns[contestant][-1].seconds:.2f} s", file=sys.stderr)
        for process in processes:
            process.join()
    return {contestant: taken[1:] for contestant, taken in turns.items()}


def _quietly(run: Contestant, settings: Settings, folder: Path, connection: Connection) -> None:
    """Run a contestant in the folder of inputs, where nothing hides a package, without its progress bars."""
    os.chdir(folder)
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    run(settings, folder, connection)


def table(turns: dict[str, list[Turn]], base: str) -> str:
    """Markdown: medians of the timed turns, medians of the ratios to `base` of each round, and the floor.

    The floor is in processor seconds: operations over the rate of one core in the same run. It and the processor
    seconds are what to read where other programs share the machine.
    """
    turns = dict(turns)
    rate = median(t.flops / t.cpu_seconds for t in turns.pop("matrix"))
    heads = ["", "s a step", "of them sampling", "tokens", "tokens/s", "CPU s", "GFLOP", "floor, CPU s"]
    heads += ["CPU s / floor", "s, ratio", "CPU s, ratio"]
    lines = [f"matrix rate of a core: {rate / 1e9:.0f} GFLOP/s\n", _line(heads), _line(["---"] * len(heads))]
    for name, (*timed, counted) in turns.items():
        pairs = list(zip(timed, turns[base][:-1], strict=True))
        cpu, floor = median(t.cpu_seconds for t in timed), counted.flops / rate
        cells = [
            name,
            f"{median(t.seconds for t in timed):.1f}",
            f"{median(t.sampling_seconds / t.seconds for t in timed):.0%}",
            f"{median(t.tokens for t in timed):,.0f}",
            f"{median(t.tokens / t.seconds for t in timed):,.0f}",
            f"{cpu:.1f}",
            f"{counted.flops / 1e9:.0f}",
            f"{floor:.1f}",
            f"{cpu / floor:.1f}",
            f"{median(a.seconds / b.seconds for a, b in pairs):.2f}",
            f"{median(a.cpu_seconds / b.cpu_seconds for a, b in pairs):.2f}",
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def parts(arguments: argparse.Namespace) -> dict[str, Contestant]:
    """The contestants that the command line asks for; the first is the base of the ratios."""
    grpo = {"guide-rl, GRPO": partial(guide, trigger="never", failing=0.0)}
    shares = {f"guide-rl, Guide-GRPO, {share:.0%} triggered": share for share in (0.0, 0.25, 0.5)}
    guided = {name: partial(guide, trigger="all_incorrect", failing=share) for name, share in shares.items()}
    others = {f"TRL, {rows} rows a pass": partial(trl, rows=rows) for rows in arguments.trl_rows}
    chosen = grpo | guided if arguments.guided else others | grpo
    return {**chosen, "matrix": matrix_rate}


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each kind of rollout lengths, and write every turn to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guided", action="store_true", help="Guide-GRPO beside GRPO, instead of GRPO beside TRL")
    parser.add_argument("--lengths", choices=EOS_IDS, nargs="+", default=list(EOS_IDS))
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one of warm-up")
    parser.add_argument("--threads", type=int, default=1, help="OpenMP threads of a contestant")
    parser.add_argument("--trl-rows", type=int, nargs="+", default=[16], help="rows in a pass of TRL's update")
    parser.add_argument("--prompt-tokens", type=int, default=Settings.prompt_tokens, help="mean length of prompts")
    parser.add_argument("--out", type=Path, help="JSON file for settings, versions and every turn")
    arguments = parser.parse_args(argv)
    os.environ |= {"OMP_NUM_THREADS": str(arguments.threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    settings = Settings("", arguments.threads, prompt_tokens=arguments.prompt_tokens, steps=arguments.rounds + 2)
    contestants = parts(arguments)
    record: dict[str, Any] = {name: version(name) for name in ("torch", "transformers", "trl")}
    record |= {"python": platform.python_version(), "processors": os.cpu_count(), "comparisons": []}
    for lengths in arguments.lengths:
        shared = replace(settings, lengths=lengths)
        turns = compare(shared, contestants)
        print(
            f"\n{lengths} lengths, {arguments.threads} thread(s); {table(turns, next(iter(contestants)))}", flush=True
        )
        taken = {name: [asdict(each) for each in some] for name, some in turns.items()}
        record["comparisons"].append({"settings": asdict(shared), "turns": taken})
        if arguments.out:
            arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
