"""The command `guide`: parse first, import what is heavy only for the stage that runs."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from jsonargparse import Namespace

from guide_rl import __version__
from guide_rl.config import EvaluateRecipe, GuidanceRecipe, ProblemsRecipe, SFTRecipe, TrainRecipe
from guide_rl.recipes import Recipe, nearest, parse_recipe, recipe_parser, write_recipe
from guide_rl.run_folder import RunFolder

USER_ERRORS = (ValueError, OSError, MemoryError, FloatingPointError)
"""Errors whose message says what to do; any other is a defect and shows its traceback."""
EXTRAS = {
    "train": ("torch", "transformers", "trl", "peft", "accelerate", "safetensors"),
    "problems": ("datasets", "champ_dataset", "rensa"),
    "guidance": ("openai",),
    "verl": ("verl", "ray", "tensordict", "hydra", "omegaconf"),
}
"""Packages that a bare installation may lack, by the extra that brings them."""


class CommandParser(argparse.ArgumentParser):
    """A parser that raises ValueError where argparse's own prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(message)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `guide ARGUMENTS`; exits with 1 when it could not (standard error says why), 2 on usage, 130 on Ctrl-C."""
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        run = parse(name, rest)
    except (ValueError, OSError) as error:
        _fail(f"guide {name}" if name in COMMANDS else "guide", error, 2)
    try:
        run()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough: `guide ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print(f"guide {name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if missing in packages), None)
        if extra is None:
            raise
        _fail(f"guide {name}", f"it needs the package {missing}: pip install 'guide-rl[{extra}]'", 1)
    except USER_ERRORS as error:
        _fail(f"guide {name}", str(error) or ("out of memory" if isinstance(error, MemoryError) else repr(error)), 1)


def parse(command: str, arguments: Sequence[str]) -> Callable[[], object]:
    """What `guide COMMAND ARGUMENTS` will do, checked and not yet begun.

    Raises:
        ValueError, OSError: the arguments or the recipe are wrong; says what to write.
    """
    if command.startswith("-"):
        _options().parse_args([command, *arguments])
    if command not in COMMANDS:
        raise ValueError(f"no command {command}{nearest(command, list(COMMANDS))}")
    return COMMANDS[command][1](list(arguments))


def split(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Arguments of `guide train` or `guide sft` -> recipe files, `field=value` overrides, and options.

    `--resume RUN` reads RUN/recipe.yaml first, so that only what differs from it need be said (and is refused).

    Raises:
        ValueError: `--resume` without a run folder.
    """
    files: list[str] = []
    overrides: list[str] = []
    options: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument.partition("=")[0] == "--resume":
            run = argument.partition("=")[2] or (left.pop(0) if left else "")
            if not run:
                raise ValueError("--resume takes a run folder: --resume RUN")
            options.append(f"--resume={run}")
            files.insert(0, str(Path(run) / "recipe.yaml"))
        elif "=" in argument:
            overrides.append(argument.removeprefix("--"))
        else:
            (options if argument.startswith("-") else files).append(argument)
    return files, overrides, options


def _fail(program: str, reason: object, status: int) -> NoReturn:
    """Say in a line why the program ends, and end it."""
    print(f"{program}: error: {reason}", file=sys.stderr)
    sys.exit(status)


def _options() -> CommandParser:
    """What `guide` understands without a command: --help and --version."""
    parser = CommandParser(
        prog="guide",
        usage="guide COMMAND ...",
        description="Reinforcement learning of reasoning models with guidance on failure.",
        epilog="`guide COMMAND --help` says more.",
    )
    parser.add_argument("--version", action="version", version=f"guide {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (summary, _) in COMMANDS.items():
        commands.add_parser(name, help=summary)
    return parser


def _recipe_command(
    kind: type[Recipe], name: str, description: str, arguments: Sequence[str], flags: Iterable[tuple[str, str]] = ()
) -> tuple[Recipe, Namespace]:
    """The recipe and the options of `guide train` or `guide sft`; `flags` are options without a value, with their help."""
    usage = f"guide {name} RECIPE [field=value ...]" + "".join(f" [{flag}]" for flag, _ in flags)
    parser = recipe_parser(
        kind,
        prog=f"guide {name}",
        usage=f"{usage}\n       guide {name} --resume RUN",
        description=f"{description} RECIPE is a YAML file with the fields below; field=value wins over it.",
    )
    parser.add_argument("--resume", metavar="RUN", help="a run folder, to continue its run")
    for flag, text in flags:
        parser.add_argument(flag, action="store_true", help=text)
    files, overrides, options = split(arguments)
    for option in options:
        if option.startswith("--resume="):
            _check_kind(RunFolder.open(option.removeprefix("--resume=")), name)
    return parse_recipe(kind, parser, files, overrides, options)


def _check_kind(run: RunFolder, command: str) -> None:
    """Raise ValueError when the run is one of another command; says how that one goes on."""
    import yaml

    recipe = yaml.safe_load((run.path / "recipe.yaml").read_text(encoding="utf-8"))
    values = recipe if isinstance(recipe, dict) else {}
    made_by = "evaluate" if "benchmarks" in values else "sft" if isinstance(values.get("problems"), str) else "train"
    if made_by == "evaluate":
        raise ValueError(f"{run.path} is a run of guide evaluate, which goes on when the same command is started again")
    if made_by != command:
        raise ValueError(f"{run.path} is a run of guide {made_by}: guide {made_by} --resume {run.path}")


def _problems(arguments: list[str]) -> Callable[[], object]:
    """`guide problems`."""
    parser = recipe_parser(
        ProblemsRecipe,
        prog="guide problems",
        usage="guide problems RECIPE [field=value ...]\n       guide problems --show N FILE [RECIPE] [field=value ...]",
        description="Make files of clean problems from data sets. RECIPE is a YAML file with the fields below; field=value "
        "wins over it. --show prints the first N problems of FILE as the model will see them (model, prompts).",
    )
    parser.add_argument("--show", metavar="N", type=int, help="problems to print of a problem file")
    arguments, count = _taken(arguments, "--show")
    files, overrides, options = split(arguments)
    shown = files.pop(0) if count and files else None
    recipe, _ = parse_recipe(ProblemsRecipe, parser, files, overrides, options)
    if count and (shown is None or not count.isdecimal() or int(count) < 1):
        raise ValueError("--show takes a number of problems and a problem file: --show 3 data/problems/problems.jsonl")
    if not count and not recipe.sources:
        raise ValueError("not set: sources; set it in a recipe, such as recipes/problems/gsm8k.yaml")

    def run() -> None:
        from guide_rl.problems.views import print_summary, show_problems

        if shown is not None:
            print(show_problems(shown, int(count), recipe))
            return
        from guide_rl.problems.preparation import prepare

        print_summary(prepare(recipe), recipe.out)

    return run


def _taken(arguments: Sequence[str], option: str) -> tuple[list[str], str]:
    """The arguments without an option and its value, and that value; "" where it is not there."""
    left = list(arguments)
    for index, argument in enumerate(left):
        if argument == option:
            value = left[index + 1 : index + 2]
            return left[:index] + left[index + 2 :], value[0] if value else "nothing"
        if argument.startswith(f"{option}="):
            return left[:index] + left[index + 1 :], argument.partition("=")[2] or "nothing"
    return left, ""


def _guidance(arguments: list[str]) -> Callable[[], object]:
    """`guide guidance`."""
    parser = recipe_parser(
        GuidanceRecipe,
        prog="guide guidance",
        usage="guide guidance RECIPE [field=value ...] [--dry-run]",
        description="Have a teacher write guidance for every problem of a file. RECIPE is a YAML file with the fields below; "
        "field=value wins over it.",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the cost and one prompt; ask nothing")
    recipe, options = parse_recipe(GuidanceRecipe, parser, *split(arguments))

    def run() -> None:
        from guide_rl.guidance.writing import dry_run, report, write_guidance

        print(dry_run(recipe) if options.dry_run else report(write_guidance(recipe), recipe.out))

    return run


def _train(arguments: list[str]) -> Callable[[], object]:
    """`guide train`."""
    flags = [
        ("--dry-run", "show the resolved recipe, two prompts and the cost; stop"),
        (
            "--print-config",
            "print the resolved recipe or, with engine verl, what verl is configured with; start nothing",
        ),
    ]
    recipe, options = _recipe_command(
        TrainRecipe,
        "train",
        "Train a policy with Guide-GRPO, Guide-PPO or what they are compared with.",
        arguments,
        flags,
    )
    if recipe.engine == "verl":
        from guide_rl.trainers.verl.fields import require_honoured

        require_honoured(recipe)

    def run() -> None:
        if options.print_config:
            print(_config(recipe), end="")
            return
        if options.dry_run:
            from guide_rl.trainers.dry_run import dry_run

            print(dry_run(recipe))
            return
        from guide_rl.trainers.trainer import train

        train(recipe, resume=options.resume)

    return run


def _config(recipe: TrainRecipe) -> str:
    """What a recipe comes to, as YAML: its fields, or, with engine verl, all that verl is configured with."""
    if recipe.engine == "verl":
        from guide_rl.trainers.verl.config import as_yaml

        return as_yaml(recipe)
    return write_recipe(recipe)


def _sft(arguments: list[str]) -> Callable[[], object]:
    """`guide sft`."""
    recipe, options = _recipe_command(SFTRecipe, "sft", "Supervised fine-tuning on worked solutions.", arguments)

    def run() -> None:
        from guide_rl.trainers.sft import run_sft

        run_sft(recipe, resume=options.resume)

    return run


def _evaluate(arguments: list[str]) -> Callable[[], object]:
    """`guide evaluate`."""
    parser = recipe_parser(
        EvaluateRecipe,
        prog="guide evaluate",
        usage="guide evaluate RECIPE [field=value ...] [--again]",
        description="Measure pass@1 and pass@k of models and checkpoints on benchmarks. RECIPE is a YAML file with the fields "
        "below; field=value wins over it. The same command again goes on where it was.",
    )
    parser.add_argument("--again", action="store_true", help="forget what the run folder holds and measure all anew")
    recipe, options = parse_recipe(EvaluateRecipe, parser, *split(arguments))

    def run() -> None:
        from guide_rl.evaluation.running import evaluate_models

        evaluate_models(recipe, again=options.again)

    return run


def _export(arguments: list[str]) -> Callable[[], object]:
    """`guide export`."""
    parser = CommandParser(
        prog="guide export",
        usage="guide export RUN FOLDER [--best]",
        description="Write a checkpoint as one plain model folder, LoRA merged.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder (its newest checkpoint), or a checkpoint folder")
    parser.add_argument("folder", metavar="FOLDER", help="where to write the model")
    parser.add_argument(
        "--best", action="store_true", help="the run's checkpoint with the best held-out pass@1 instead of the newest"
    )
    parsed = parser.parse_args(arguments)

    def run() -> None:
        from guide_rl.trainers.export import export_checkpoint

        export_checkpoint(Path(parsed.run), Path(parsed.folder), best=parsed.best)

    return run


def _report(arguments: list[str]) -> Callable[[], object]:
    """`guide report`."""
    parser = CommandParser(
        prog="guide report",
        usage="guide report [NAME=]RUN ... [--out FOLDER] [--k K] [--base NAME[@STEP]]\n"
        "                    [--common] [--page-rollouts N] [--watch]",
        description="Tables, figures and one page from runs of guide train and guide evaluate. A NAME that repeats means "
        "training seeds of one method.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders, each with a name in front or without")
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("report"), help="where to write")
    parser.add_argument(
        "--k", type=int, help="the k of pass@k; by default the largest power of two that all runs allow"
    )
    parser.add_argument("--base", metavar="NAME[@STEP]", help="the untrained policy; by default step 0 of each model")
    parser.add_argument(
        "--common", action="store_true", help="compare the common problems where runs have different ones"
    )
    parser.add_argument("--page-rollouts", metavar="N", type=int, default=50_000, help="rollouts on the page at most")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="keep the report current while a run goes on (compares what is there: --common)",
    )
    parsed = vars(parser.parse_args(arguments))
    runs, watched = parsed.pop("runs"), parsed.pop("watch")

    def run() -> None:
        from guide_rl.analysis.report import ReportOptions, report, watch

        def note(text: str) -> None:
            print(text, file=sys.stderr)

        options = ReportOptions(**parsed)
        if watched:
            watch(runs, options, note)
        print(report(runs, options, note))

    return run


def _demo(arguments: list[str]) -> Callable[[], object]:
    """`guide demo`."""
    parser = CommandParser(
        prog="guide demo",
        usage="guide demo [--out FOLDER] [--seed SEED] [--rollouts COUNT]",
        description="GRPO against Guide on a tiny model, in minutes, on a CPU.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", metavar="FOLDER", default="runs/demo", help="runs, table, figures and summary.json")
    parser.add_argument("--seed", type=int, default=0, help="seed of the comparison")
    parser.add_argument(
        "--rollouts", metavar="COUNT", type=int, default=5120, help="rollouts that each method samples in training"
    )
    parsed = parser.parse_args(arguments)
    if parsed.rollouts < 1:
        raise ValueError(f"--rollouts must be at least 1, not {parsed.rollouts}")

    def run() -> None:
        from guide_rl.demo.compare import run_demo

        run_demo(Path(parsed.out), seed=parsed.seed, rollouts=parsed.rollouts)

    return run


COMMANDS: dict[str, tuple[str, Callable[[list[str]], Callable[[], object]]]] = {
    "problems": ("make files of clean problems from data sets", _problems),
    "guidance": ("have a teacher write guidance for problems", _guidance),
    "train": ("train a policy with Guide-GRPO, Guide-PPO or what they are compared with", _train),
    "sft": ("supervised fine-tuning on worked solutions", _sft),
    "evaluate": ("measure pass@1 and pass@k of models on benchmarks", _evaluate),
    "export": ("write a checkpoint as a plain model folder, LoRA merged", _export),
    "report": ("tables, figures and one page from runs", _report),
    "demo": ("GRPO against Guide on a tiny model, on a CPU", _demo),
}
"""Commands: a summary, and what turns arguments into the work to do."""

if __name__ == "__main__":
    main()
