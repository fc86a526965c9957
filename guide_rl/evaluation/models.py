"""The models that a recipe of `guide evaluate` names, found before anything is loaded."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from guide_rl.config import EvaluateRecipe

STEP = "step-"
WHOLE_BYTES = 2**24
"""Files up to this size are read whole for a fingerprint."""
PIECES, PIECE_BYTES = 64, 2**16
"""Of larger ones (weights) so many pieces, evenly spaced: training changes them everywhere."""


@dataclass(frozen=True)
class EvaluatedModel:
    """One set of weights."""

    name: str
    """The recipe's name for it."""
    step: int | None
    """The training step of a checkpoint; None where it is none."""
    path: str
    """A folder, a hub name, or the endpoint's name."""

    def __str__(self) -> str:
        return self.name if self.step is None else f"{self.name}, step {self.step}"

    @property
    def fingerprint(self) -> str | None:
        """Changes when the files of its folder do; None where it is not a folder."""
        return fingerprint(Path(self.path)) if Path(self.path).is_dir() else None


def find_models(recipe: EvaluateRecipe) -> list[EvaluatedModel]:
    """The models of a recipe, checkpoints of one run by their steps.

    Raises:
        FileNotFoundError: a folder is not there or holds no model; names the field.
    """
    if recipe.sampler == "chat":
        return [EvaluatedModel(name, None, model) for name, model in recipe.models.items()]
    return [model for name, path in recipe.models.items() for model in _models_at(name, path)]


def _models_at(name: str, given: str) -> list[EvaluatedModel]:
    """The models that one entry of `models` means."""
    folder = Path(given).expanduser()
    if not folder.is_dir():
        if given.startswith(("/", ".", "~")) or given.count("/") > 1 or ("/" in given and folder.parent.is_dir()):
            raise FileNotFoundError(f"models.{name}: {given}: no such folder")
        return [EvaluatedModel(name, None, given)]
    checkpoints = {step: path for path in folder.glob(f"{STEP}*") if (step := step_of(path)) is not None}
    if not holds_model(folder) and checkpoints:
        return [_checked(name, checkpoints[step]) for step in sorted(checkpoints)]
    if (folder / "recipe.yaml").is_file():
        in_run = [p for p in (folder / "checkpoints").glob(f"{STEP}*") if step_of(p) is not None]
        folder = folder / "model" if holds_model(folder / "model") else max(in_run, key=step_of, default=folder)  # type: ignore[arg-type]
    return [_checked(name, folder)]


def _checked(name: str, folder: Path) -> EvaluatedModel:
    """A folder as a model, once it is seen to hold one, with its tokenizer."""
    if not holds_model(folder):
        raise FileNotFoundError(
            f"models.{name}: {folder} holds no model (no config.json); give a model folder, a run, a checkpoint such as "
            "runs/x/checkpoints/step-000100, or a run's checkpoints folder"
        )
    if not any(any(folder.glob(pattern)) for pattern in ("tokenizer*", "vocab.*", "*.model", "*.tiktoken")):
        raise FileNotFoundError(
            f"models.{name}: {folder} holds no tokenizer (no tokenizer.json); copy the tokenizer files of the model that it "
            "was trained from into it"
        )
    return EvaluatedModel(name, step_of(folder), str(folder))


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a model or an adapter in Hugging Face format."""
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def step_of(folder: Path) -> int | None:
    """The step in the name of a checkpoint folder; None where it has none."""
    number = folder.name.removeprefix(STEP)
    return int(number) if folder.name.startswith(STEP) and number.isdecimal() else None


def fingerprint(folder: Path) -> str:
    """A digest of the files in a folder: names, sizes, and their bytes (of large ones, evenly spaced pieces)."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= WHOLE_BYTES:
                digest.update(file.read())
                continue
            for piece in range(PIECES):
                file.seek(piece * (size - PIECE_BYTES) // (PIECES - 1))
                digest.update(file.read(PIECE_BYTES))
    return digest.hexdigest()
