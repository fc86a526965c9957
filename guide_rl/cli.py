"""The command `guide`: parse first, import what is heavy only for the stage that runs."""

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from guide_rl import __version__
from guide_rl.config import SFTRecipe, TrainRecipe
from guide_rl.recipes import build_recipe, recipe_parser

USER_ERRORS = (ValueError, OSError, MemoryError, FloatingPointError)
"""Errors whose message says what to do; any other is a defect and shows its traceback."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `guide ARGUMENTS`; exits with 1 when it could not (standard error says why), 2 on usage, 130 on Ctrl-C."""
    options = as_options(list(sys.argv[1:] if arguments is None else arguments))
    parser, parsers = _parsers(options[:1])
    parsed = parser.parse_args(options)
    command = str(parsed.command)
    try:
        COMMANDS[command](parsers[command], parsed[command])
    except KeyboardInterrupt:
        print(f"guide {command}: interrupted", file=sys.stderr)
        sys.exit(130)
    except USER_ERRORS as error:
        print(f"guide {command}: error: {error}", file=sys.stderr)
        sys.exit(1)


def as_options(arguments: list[str]) -> list[str]:
    """The short forms in the parser's own: `x.yaml` is `--recipe x.yaml`, `loss.beta=0.01` is `--loss.beta=0.01`.

    `--resume RUN` reads RUN/recipe.yaml first, so that only what differs from it need be said (and is refused).
    """
    if not arguments or arguments[0] not in ("train", "sft"):
        return arguments
    options: list[str] = []
    recipes: list[str] = []
    for previous, argument in pairwise(arguments):
        if argument.startswith("-") or (previous.startswith("--") and "=" not in previous and previous != "--dry-run"):
            options.append(argument)
            if previous == "--resume":
                recipes = ["--recipe", str(Path(argument) / "recipe.yaml"), *recipes]
        elif "=" in argument:
            options.append(f"--{argument}")
        else:
            recipes += ["--recipe", argument]
    return [arguments[0], *recipes, *options]


def _parsers(used: Sequence[str]) -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The whole command line, and its parts by command; commands that are not used get no fields (which take time)."""
    parser = ArgumentParser(
        prog="guide",
        version=__version__,
        description="Reinforcement learning of reasoning models with guidance on failure.",
    )
    commands = parser.add_subcommands(dest="command", required=True, metavar="COMMAND")
    parsers = {}
    for name, (description, build) in PARSERS.items():
        parsers[name] = build(description) if name in used else ArgumentParser(description=description)
        commands.add_subcommand(name, parsers[name], help=description)
    return parser, parsers


def _train_parser(description: str) -> ArgumentParser:
    usage = "guide train RECIPE [field=value ...] [--dry-run]\n       guide train --resume RUN"
    parser = recipe_parser(TrainRecipe, description=description, usage=usage)
    parser.add_argument(
        "--resume", type=str | None, default=None, help="run folder to continue, bit for bit on the CPU"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the resolved recipe, two prompts and the cost; stop"
    )
    return parser


def _sft_parser(description: str) -> ArgumentParser:
    return recipe_parser(SFTRecipe, description=description, usage="guide sft RECIPE [field=value ...]")


def _export_parser(description: str) -> ArgumentParser:
    parser = ArgumentParser(description=description)
    parser.add_argument("checkpoint", type=str, help="a checkpoint folder, or a run folder (its newest checkpoint)")
    parser.add_argument("folder", type=str, help="where to write the model")
    return parser


def _demo_parser(description: str) -> ArgumentParser:
    parser = ArgumentParser(description=description)
    parser.add_argument("--out", type=str, default="runs/demo", help="folder for runs, table, figures and summary.json")
    parser.add_argument("--seed", type=int, default=0, help="seed of the comparison")
    parser.add_argument("--rollouts", type=int, default=5120, help="rollouts that each method samples in training")
    return parser


PARSERS: dict[str, tuple[str, Callable[[str], ArgumentParser]]] = {
    "train": ("train a policy with GRPO, Filter-GRPO or Guide-GRPO", _train_parser),
    "sft": ("supervised fine-tuning on worked solutions", _sft_parser),
    "export": ("write a checkpoint as one plain model folder, LoRA merged", _export_parser),
    "demo": ("GRPO against Guide on a tiny model, in minutes, on a CPU", _demo_parser),
}


def _train(parser: ArgumentParser, parsed: Namespace) -> None:
    """`guide train`."""
    recipe = build_recipe(TrainRecipe, parser, parsed)
    if parsed.dry_run:
        from guide_rl.trainers.dry_run import dry_run

        print(dry_run(recipe))
        return
    from guide_rl.trainers.local import train

    train(recipe, resume=parsed.resume)


def _sft(parser: ArgumentParser, parsed: Namespace) -> None:
    """`guide sft`."""
    from guide_rl.trainers.sft import run_sft

    run_sft(build_recipe(SFTRecipe, parser, parsed))


def _export(parser: ArgumentParser, parsed: Namespace) -> None:
    """`guide export`."""
    from guide_rl.policy import export_checkpoint

    export_checkpoint(Path(parsed.checkpoint), Path(parsed.folder))


def _demo(parser: ArgumentParser, parsed: Namespace) -> None:
    """`guide demo`."""
    from guide_rl.demo.compare import run_demo

    run_demo(Path(parsed.out), seed=parsed.seed, rollouts=parsed.rollouts)


COMMANDS: dict[str, Callable[[ArgumentParser, Namespace], None]] = {
    "train": _train,
    "sft": _sft,
    "export": _export,
    "demo": _demo,
}

if __name__ == "__main__":
    main()
