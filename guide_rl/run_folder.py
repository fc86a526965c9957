"""What a run leaves behind, and how nothing of it gets lost.

    RUN/recipe.yaml            the recipe as resolved
    RUN/versions.json          the versions it started with, and the SHA-256 of the files that it reads
    RUN/metrics.jsonl          one line a step: everything that follows from recipe and seed
    RUN/timings.jsonl          one line a step: seconds and tokens per second
    RUN/problems.jsonl         one line a problem, when it is first sampled
    RUN/rollouts.jsonl         one line a rollout of training
    RUN/held_out.jsonl         one line a rollout of an evaluation
    RUN/checkpoints/step-*/    what the engine saves (local: Hugging Face format, and trainer.pt), and trainer.json of the loop
    RUN/model/                 the trained model, at the end

A checkpoint is written under another name, synced, and renamed: it is there whole or not at all. It records how
long the line files were, so that resuming cuts off what a killed run wrote after it.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from guide_rl.atomic_files import mend, put_folder, put_text, sync
from guide_rl.types import Grade, Problem, Rollout

LINE_FILES = ("metrics.jsonl", "timings.jsonl", "problems.jsonl", "rollouts.jsonl", "held_out.jsonl")
STATE_FILE = "trainer.json"
"""What a checkpoint holds of the training loop itself."""
SHARDS = "actor"
"""Where a checkpoint of engine verl holds the policy, in parts that `guide export` merges."""
_FILES = ("recipe.yaml", "versions.json", ".lock", *LINE_FILES)
_VERSIONS = ("guide-rl", "torch", "transformers", "accelerate", "peft", "trl", "math-verify", "reasoning-gym", "numpy")
_SEAL = "# Do not edit; give what may change on the command line, field=value. SHA-256 of the above: "


class DiskFull(OSError):
    """No space left while saving; what was saved before is whole."""


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    @classmethod
    def create(cls, path: str | Path, recipe_yaml: str, inputs: Mapping[str, str] | None = None) -> "RunFolder":
        """Make the folder of a new run.

        Args:
            path: where; must not hold a run yet.
            recipe_yaml: the recipe as resolved.
            inputs: field of the recipe -> file that the run reads; `check_inputs` tells when one has changed.

        Raises:
            FileExistsError: it holds a run already.
        """
        run = cls(path)
        run.check_free()
        files = {name: content_digest(file) for name, file in (inputs or {}).items()}
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        run.write("versions.json", json.dumps(versions() | {"files": files}, indent=2) + "\n")
        run.write_recipe(recipe_yaml)
        return run

    def check_free(self) -> None:
        """Raise FileExistsError when the folder holds a run, or files of one."""
        if (self.path / "recipe.yaml").exists():
            raise FileExistsError(
                f"{self.path} holds a run already; continue it with `--resume {self.path}`, or give this one another "
                "folder (run=...)"
            )
        taken = [name for name in _FILES if (self.path / name).exists() and name != ".lock"]
        if taken or self.latest_checkpoint() is not None or self.path.is_file():
            raise FileExistsError(
                f"{self.path} holds {taken[0] if taken else 'something'} that is not this run's; give another folder (run=...)"
            )

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls,
        path: str | Path,
        recipe_yaml: str,
        *,
        resume: str | Path | None = None,
        inputs: Mapping[str, str],
        may_change: Sequence[str] = (),
    ) -> Iterator[tuple["RunFolder", Path | None]]:
        """A new run in `path`, or the run in `resume` cut back to its newest checkpoint, for this process alone.

        A new run that ends in an error before it did a step is removed, so that its folder can be used again.

        Yields:
            The run, and the checkpoint to continue from.

        Raises:
            OSError, ValueError: as `create`, `open`, `lock`, `check_recipe` and `check_inputs`.
        """
        run = cls.create(path, recipe_yaml, inputs) if resume is None else cls.open(resume)
        with run.lock():
            checkpoint = None
            if resume is not None:
                run.check_recipe(recipe_yaml, may_change)
                run.check_inputs(inputs)
                checkpoint = run.rewind()
            try:
                yield run, checkpoint
            except BaseException:
                if resume is None and not run.read("timings.jsonl") and run.latest_checkpoint() is None:
                    run._discard()
                raise

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """The folder of an existing run; FileNotFoundError when there is none."""
        run = cls(path)
        if not (run.path / "recipe.yaml").is_file():
            raise FileNotFoundError(f"{run.path} holds no run (no recipe.yaml); start one with `guide train RECIPE`")
        return run

    def recipe(self) -> dict[str, Any]:
        """The values of the run's recipe, sections nested.

        Raises:
            ValueError: recipe.yaml was edited.
        """
        import yaml

        own, _, seal = (self.path / "recipe.yaml").read_text(encoding="utf-8").rpartition(_SEAL)
        if seal.strip() != _digest(own):
            raise ValueError(
                f"{self.path / 'recipe.yaml'} was edited after the run was started; restore it, and give what may change "
                "on the command line: field=value"
            )
        values: dict[str, Any] = yaml.safe_load(own)
        return values

    def changes(self, recipe_yaml: str) -> dict[str, str]:
        """The fields in which a recipe differs from the run's own: field -> what it was and is.

        Raises:
            ValueError: the run's recipe.yaml was edited.
        """
        import yaml

        old, new = _flat(self.recipe()), _flat(yaml.safe_load(recipe_yaml))
        return {
            key: f"{old.get(key)!r} -> {new.get(key)!r}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)
        }

    def check_recipe(self, recipe_yaml: str, may_change: Sequence[str] = ()) -> None:
        """Raise ValueError naming every field that differs from the run's, but those that may change and what is below them."""

        def free(key: str) -> bool:
            return any(f"{key}.".startswith(f"{field}.") for field in may_change)

        changed = [f"{key}: {what}" for key, what in self.changes(recipe_yaml).items() if not free(key)]
        if changed:
            raise ValueError(
                f"{self.path} was started with another recipe ({'; '.join(changed)}). Resume it unchanged, or "
                f"start a new run from its weights with {as_model(self.latest_checkpoint() or self.path)}"
            )

    def write_recipe(self, recipe_yaml: str) -> None:
        """Write the run's recipe, sealed, so that `recipe` can tell when it was edited."""
        self.write("recipe.yaml", f"{recipe_yaml}{_SEAL}{_digest(recipe_yaml)}\n")

    def check_inputs(self, inputs: Mapping[str, str]) -> None:
        """Refuse files that are not what they were when the run was created.

        Raises:
            FileNotFoundError: one is no longer there.
            ValueError: one has changed.
        """
        known = json.loads((self.path / "versions.json").read_text(encoding="utf-8")).get("files", {})
        for name, file in inputs.items():
            if known.get(name) and not Path(file).exists():
                raise FileNotFoundError(
                    f"{name}: {file} is not there; start in the folder where the run was started ({Path.cwd()} is another), "
                    "or restore it"
                )
            if name in known and known[name] != content_digest(file):
                raise ValueError(
                    f"{name}: {file} has changed since {self.path} was started; restore it, or start a new run from "
                    f"its weights with {as_model(self.latest_checkpoint() or self.path)}"
                )

    def lock(self) -> TextIO:
        """Keep other processes off this run while the returned file is open; the lock ends with the process.

        Raises:
            BlockingIOError: another process is working on this run.
        """
        path = self.path / ".lock"
        while True:
            file = path.open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                raise BlockingIOError(
                    f"{self.path}: another process is working on this run; wait for it or stop it"
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    return file
            file.close()  # removed by the process that held it before: a lock that nobody else would see

    def _discard(self) -> None:
        """Remove what a run wrote before its first step; anything else in its folder stays."""
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.checkpoints, self.path):
            with contextlib.suppress(OSError):
                folder.rmdir()

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append JSON lines to one of `LINE_FILES`."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with _explained(self.path), (self.path / name).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(lines)

    def read(self, name: str) -> list[dict[str, Any]]:
        """The rows of one of `LINE_FILES`; a half-written last line is left out."""
        return list(self.rows(name))

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """As `read`, one row after the other."""
        path = self.path / name
        if path.exists():
            with path.open(encoding="utf-8", newline="\n") as lines:
                yield from (json.loads(line) for line in lines if line.endswith("\n") and line != "\n")

    def save_checkpoint(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a checkpoint folder, then put it in place at once.

        Raises:
            DiskFull: no space; the half-written folder is removed, older checkpoints are untouched.
        """

        def write_all(partial: Path) -> None:
            write(partial)
            files = [self.path / name for name in LINE_FILES if (self.path / name).exists()]
            for file in files:
                sync(file)
            lengths = {file.name: file.stat().st_size for file in files}
            (partial / "line_files.json").write_text(json.dumps(lengths))

        return self.put(f"checkpoints/step-{step:06d}", write_all)

    def put(self, name: str, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a folder, then put it in place at once, instead of what was there.

        Raises:
            DiskFull: no space; the half-written folder is removed.
        """
        final = self.path / name
        with _explained(self.path):
            put_folder(final, write)
        return final

    def latest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint."""
        return max(self.checkpoints.glob("step-*"), default=None, key=_step)

    def prune(self, keep_last: int, keep: Iterable[int] = ()) -> None:
        """Remove all but the newest `keep_last` checkpoints and those of the steps in `keep`."""
        kept = set(keep)
        for path in sorted(self.checkpoints.glob("step-*"), key=_step)[:-keep_last]:
            if _step(path) not in kept:
                shutil.rmtree(path)

    def rewind(self) -> Path | None:
        """Undo what a killed process left half done: back to the newest whole checkpoint, which is returned.

        The line files are cut back to what they were then (without a checkpoint: to nothing).
        """
        for folder in (self.path, self.checkpoints):
            mend(folder)
        checkpoint = self.latest_checkpoint()
        lengths = json.loads((checkpoint / "line_files.json").read_text()) if checkpoint else {}
        for name in LINE_FILES:
            path = self.path / name
            if path.exists():
                os.truncate(path, lengths.get(name, 0))
        return checkpoint

    def write(self, name: str, text: str) -> None:
        """Write a whole file, or none of it."""
        with _explained(self.path):
            put_text(self.path / name, text)


def as_model(checkpoint: Path) -> str:
    """What to write, and to do before, to start a new run from a checkpoint's weights."""
    if (checkpoint / SHARDS).is_dir():
        return f"model.path=FOLDER, after `guide export {checkpoint} FOLDER`"
    return f"model.path={checkpoint}"


def problem_line(name: str, problem: Problem) -> dict[str, Any]:
    """A line of problems.jsonl: what a person needs to read its rollouts; `name` is the set that it belongs to."""
    line = {"set": name, "id": problem.id, "question": problem.question, "answer": problem.answer}
    more = {"guidance": problem.guidance, "stratum": problem.stratum}
    return line | {field: text for field, text in more.items() if text}


def rollout_line(problem: Problem, rollout: Rollout, grade: Grade) -> dict[str, Any]:
    """What every line about a rollout holds."""
    return {
        "problem_id": rollout.problem_id,
        "stratum": problem.stratum,
        "index": rollout.index,
        "guided": rollout.guided,
        "reward": grade.reward,
        "correct": grade.correct,
        "verdict": grade.verdict,
        "finish": rollout.finish,
        "tokens": rollout.tokens,
        "text": rollout.text,
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _step(checkpoint: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(checkpoint.name.removeprefix("step-"))


class _explained:
    """Turn 'no space left on device' (also from safetensors and torch) into an error that says what to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        codes = (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, Exception) and (getattr(error, "errno", None) in codes or _says_disk_full(error)):
            raise DiskFull(
                errno.ENOSPC,
                f"no space left while saving to {self.folder}; what was saved before is whole. "
                f"Free some space and continue with `guide train --resume {self.folder}` (other commands: the same again)",
            ) from error


def _says_disk_full(error: Exception) -> bool:
    """Whether a library's own error means a full disk."""
    text = str(error).lower()
    return any(words in text for words in ("no space left", "disk quota", "file write failed", "unexpected pos"))


def content_digest(path: str) -> str | None:
    """What a file holds, or the files of a folder, in short; None when there is nothing (whoever reads it says so)."""
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).iterdir() if file.is_file())
        return _digest("".join(f"{file.name} {content_digest(str(file))}\n" for file in files))
    if not Path(path).is_file():
        return None
    with Path(path).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _digest(text: str) -> str:
    """A text, in short."""
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, Any]:
    """What this process runs with."""
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
