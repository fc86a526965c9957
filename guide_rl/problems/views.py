"""What `guide problems` prints: the summary as a table, and problems as the model will see them."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from guide_rl.config import ProblemsRecipe
from guide_rl.graders import GRADERS
from guide_rl.problems import load_problems
from guide_rl.problems.preparation import tokenizer_of
from guide_rl.prompts import Prompts


def print_summary(summary: Mapping[str, Any], out: str, console: Console | None = None) -> None:
    """Print how many rows of each source were kept and rejected, and why; then what should be known besides."""
    console = console or Console(highlight=False)
    table = Table("source", "rows", "kept", "rejected", "because", box=None, pad_edge=False)
    for name, counts in summary["sources"].items():
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts["rejected"].items())
        rejected = sum(counts["rejected"].values())
        table.add_row(name, f"{counts['rows']:,}", f"{counts['kept']:,}", f"{rejected:,}", reasons)
    with console.capture() as printed:
        console.print(table)
    console.file.writelines(f"{line.rstrip()}\n" for line in printed.get().splitlines())
    for line in _notes(summary, out):
        console.print(line, markup=False, soft_wrap=True)


def _notes(summary: Mapping[str, Any], out: str) -> list[str]:
    """The lines under the table."""
    notes = [f"{Path(out) / file}: {count:,} problems" for file, count in summary["files"].items()]
    if any(counts["rejected"] for counts in summary["sources"].values()):
        notes.append(f"{Path(out) / 'rejected.jsonl'}: every rejected row and why")
    for name, found in summary["against"].items():
        notes.append(f"against {name}: {len(found['matched']):,} matches with its {found['problems']:,} problems")
        if unread := found["not_compared"]:
            listed = _some([f"{source}, row {row}: {why}" for source, row, why in unread], "; ")
            notes.append(f"against {name}: {len(unread):,} of its rows hold no readable question: {listed}")
    if unreadable := summary["unreadable_answers"]:
        notes.append(
            f"{len(unreadable):,} reference answers cannot be read by their grader, so that only the same spelling is "
            f"correct: {_some(unreadable, ', ')}"
        )
    if count := summary["guided_prompt_too_long"]:
        notes.append(f"{count:,} guided prompts are over prompts.max_tokens: training will drop their guidance")
    for grader in summary["graders"]:
        if grader not in GRADERS and ":" not in grader:
            notes.append(f"no grader is called {grader} yet: `guide train` will refuse these problems")
    return notes


def _some(items: Sequence[str], separator: str) -> str:
    """The first three, and dots where there are more."""
    return separator.join([*items[:3], *["..."][: len(items) > 3]])


def show_problems(path: str, count: int, recipe: ProblemsRecipe) -> str:
    """The first problems of a file as the model will see them, plain and guided.

    With `recipe.model`, its chat template and its count of tokens; without, the messages one after the other.

    Raises:
        FileNotFoundError, ValueError: the file cannot be read, or the recipe's prompts do not fit the tokenizer.
    """
    prompts = Prompts(_tokenizer(recipe.model), recipe.prompts)
    parts = []
    for problem in islice(load_problems(path), count):
        for guided in (False, True)[: 1 + (problem.guidance is not None)]:
            text = prompts.text(problem, guided=guided)
            kind = "guided" if guided else "plain"
            ids = (prompts.guided_ids if guided else prompts.plain_ids)(problem) if recipe.model else ()
            tokens = f", {len(ids):,} tokens" if recipe.model else ""
            parts.append(f"=== {problem.id} ({problem.stratum or 'no stratum'}), {kind}{tokens} ===\n{text}\n")
        parts.append(f"=== {problem.id}, reference answer, grader {problem.grader} ===\n{problem.answer}\n")
    return _printable("\n".join(parts))


def _tokenizer(model: str | None) -> Any:
    """The model's tokenizer, or a stand-in that lays out messages."""
    return _Messages() if model is None else tokenizer_of(model)


class _Messages:
    """Lays out messages where no tokenizer is given."""

    chat_template, eos_token_id = "messages", 0

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        """Each message under its role."""
        return "\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)


def _printable(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
