"""`guide problems`: where problems come from and how they are cleaned."""

from dataclasses import dataclass, field
from typing import Any, Literal

from guide_rl.config.checks import require, require_range
from guide_rl.config.shared import GradingConfig, PromptsConfig


@dataclass(frozen=True)
class GeneratorConfig:
    """One procedural data set of reasoning-gym."""

    name: str
    """Its name in reasoning-gym, such as countdown."""
    size: int = 1000
    """How many problems to make."""
    seed: int | None = None
    """Its seed; problem i is made from seed + i, so that ranges that overlap hold the same problems. Null means the recipe's."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Its own settings, such as {min_numbers: 4}."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: v >= 1, "at least 1", "size", prefix="generators.")


@dataclass(frozen=True)
class SourceConfig:
    """Where rows come from, and how they become problems."""

    path: str = ""
    """A file (.jsonl, .json, .csv, .tsv, also with .gz; .parquet), a local folder of a data set, or else a Hugging Face hub name."""
    kind: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "hub", "reasoning_gym", "champ"] = "auto"
    """How to read it; auto tells by the path. reasoning_gym and champ are packages and take no path."""
    config: str | None = None
    """The hub data set's configuration (subset)."""
    split: str = "train"
    """The data set's split."""
    revision: str | None = None
    """The hub data set's commit or branch; null means the newest."""
    streaming: bool = False
    """Read over the network while working instead of downloading all first; for data sets of which `limit` takes a part."""
    generators: list[GeneratorConfig] = field(default_factory=list)
    """For reasoning_gym: the data sets to make."""
    columns: dict[str, str | list[str]] = field(default_factory=dict)
    """Field of the problem (also metadata.NAME) -> column, or [column, rule, ...]; a column with braces is a text with {column} in it. None: the fields by their own names."""
    constants: dict[str, str] = field(default_factory=dict)
    """Field of the problem -> the text that it has in every row, such as {grader: exact}; stratum is the source's name otherwise."""
    choices: list[str] = field(default_factory=list)
    """Columns of a multiple-choice question, the right one first; adds the columns `choices` (shuffled by the seed, a letter each) and `letter`, and the metadata of grader choice."""
    where: dict[str, Any] = field(default_factory=dict)
    """Column -> the value, or the list of values, that a row must have; 18 is also the text 18."""
    limit: int | None = None
    """Stop after so many problems; null means all."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: v >= 1, "at least 1 or null", "limit", prefix="sources.")
        packaged = self.kind in ("reasoning_gym", "champ")
        require(packaged or bool(self.path), "sources: a source needs a path: a file, a folder or a hub name")
        require(
            not (packaged and self.path), f"sources: kind {self.kind} is a package; remove path, or set kind to auto"
        )
        require(
            bool(self.generators) == (self.kind == "reasoning_gym"),
            "sources: kind reasoning_gym goes with generators, such as [{name: countdown, size: 100}]; set both or neither",
        )
        require(
            not self.choices or 2 <= len(self.choices) <= 26,
            "sources.choices needs 2 to 26 columns, the right choice first",
        )


@dataclass(frozen=True)
class DuplicatesConfig:
    """Which questions count as the same."""

    exact: bool = True
    """Reject questions that an earlier one spells alike, but for case, spaces, `$`, `\\(`, `\\[` and Unicode forms."""
    near: bool = True
    """Reject questions whose shingles overlap with an earlier one's; turn off for problems from templates and evaluation sets."""
    threshold: float = 0.7
    """Smallest Jaccard similarity of two near-duplicates' shingles; for `against`, smallest share of an evaluation question's."""
    shingle: int = 3
    """Words (or signs) of a shingle; punctuation is none, LaTeX has one spelling."""
    same_answer: bool = True
    """Near-duplicates must have answers of the same spelling; otherwise they are variants and both stay. Decontamination does not look at answers."""

    def __post_init__(self) -> None:
        require_range(self, lambda v: 0.5 <= v <= 1, "between 0.5 and 1", "threshold", prefix="duplicates.")
        require_range(self, lambda v: v >= 1, "at least 1", "shingle", prefix="duplicates.")


@dataclass(frozen=True)
class ProblemsRecipe:
    """`guide problems`: rows of data sets -> files of problems."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """Name -> where rows come from. The name is the stratum and the beginning of every id."""
    out: str = "data/problems"
    """The folder to write; one that another recipe filled is left alone."""
    seed: int = 0
    """Seed of splits, of the order of choices and of procedural problems."""
    splits: dict[str, float] = field(default_factory=dict)
    """Name of a file -> how many problems (above 1) or which share of the others (up to 1), such as {held_out: 500, train: 1}; none: one file, problems.jsonl."""
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    against: list[str] = field(default_factory=list)
    """Evaluation sets: files of problems, or recipes of this kind. Problems that match one of theirs, exactly or nearly, are rejected."""
    model: str | None = None
    """A hub name or a local folder: its tokenizer measures prompts, and longer ones than prompts.max_tokens are rejected. Null: no limit."""
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    unreadable_answers: Literal["unchecked", "keep", "reject"] = "keep"
    """Reference answers that their own grader cannot read: not looked for, counted, or rejected."""
    grading: GradingConfig = field(default_factory=GradingConfig)

    def __post_init__(self) -> None:
        require(bool(self.out.strip()), "out is empty; name a folder, or . for this one")
        require_range(self, lambda v: v >= 0, "at least 0", "seed")
        for name, size in self.splits.items():
            require(
                bool(name) and set(name) <= _FILE_NAME, f"splits: {name!r} must be made of letters, digits, - and _"
            )
            require(name not in ("rejected", "summary"), f"splits: {name} is the name of another file; choose another")
            require(
                size > 0 and (size <= 1 or size == int(size)), f"splits.{name} must be a share or a count, not {size}"
            )
        shares = [size for size in self.splits.values() if size <= 1]
        require(not shares or abs(sum(shares) - 1) < 1e-6, f"splits: shares must add up to 1, not {sum(shares):g}")
        for name in self.sources:
            require(
                bool(name) and set(name) <= _FILE_NAME, f"sources: {name!r} must be made of letters, digits, - and _"
            )


_FILE_NAME = {*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"}
