"""What `guide guidance` costs a problem besides the teacher: `python benchmarks/guidance.py`.

In the first run every reply is there at once, in the cache (5 points, about 900 characters, no leak), but none has been
looked at; in the second the verdicts are stored too. Both include reading the problems and writing all files.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from guide_rl.chat.client import ChatClient
from guide_rl.config import ChatConfig, GuidanceRecipe
from guide_rl.guidance.asking import teacher_messages
from guide_rl.guidance.writing import write_guidance
from guide_rl.problems import save_problems
from guide_rl.types import Problem

ROWS = 10_000
REPLY = """Here are some hints:

1. Think about what it means for a shape to be a square, and how its area relates to the length $s$ of one of its sides.
2. Consider how you might determine the side length from the given area: what operation relates $s^2$ and $s$ for a square?
3. Once you have an idea for finding the side length, think about how you would compute the total length of fence needed for
   three sides, say $3s$. What does that imply about multiplying the side length?
4. Be cautious about mixing up the operations needed to go from area to side length and then to the fence perimeter.
5. Finally, try to translate the relationships into a step-by-step approach that first finds the side of the square, as in
   $s = \\sqrt{A}$, and then uses that to calculate the overall fence length for three of its sides."""


def rows() -> Iterator[Problem]:
    """Problems with questions and solutions of usual lengths."""
    for number in range(ROWS):
        yield Problem(
            id=str(number),
            question=f"The area of a new playground is square and measures ${number}^2$ square meters, for a school of "
            f"{number + 7} pupils. How many meters of fence are needed for three sides?",
            answer=str(3 * number + 1_000_000),
            solution="The side is the square root of the area. Three sides are three times as long. " * 4,
        )


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Print what a run took a problem."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    ms = 1000 / ROWS
    print(f"{name}: {ms * wall:.3f} ms a problem ({ROWS / wall:,.0f} a second); processor time {ms * processor:.3f} ms")


def main() -> None:
    """Print both figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_problems(folder / "in.jsonl", rows())
        recipe = GuidanceRecipe(
            problems=str(folder / "in.jsonl"), out=str(folder / "out"), chat=ChatConfig(model="m", api_key_env=None)
        )
        quiet = Console(quiet=True)
        (folder / "out/cache").mkdir(parents=True)
        with ChatClient(recipe.chat, cache=folder / "out/cache/replies.sqlite") as client:
            # What the teacher's replies become is the client's own matter: they are put where it would put them.
            for problem in rows():
                digest = client._digest(teacher_messages(problem, recipe.prompt))
                client._cache.put(digest, (REPLY, "stop", 400, 250))
        with timed("new replies"):
            write_guidance(recipe, console=quiet)
        with timed("full cache"):
            summary = write_guidance(recipe, console=quiet)
        assert summary["written"] == ROWS
        assert summary["last_run"]["asked"] == 0


if __name__ == "__main__":
    main()
