"""Recipes: YAML files and `field=value` overrides <-> the typed records of `config`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from guide_rl.config import SFTRecipe, TrainRecipe

set_parsing_settings(docstring_parse_attribute_docstrings=True)

Recipe = TypeVar("Recipe", TrainRecipe, SFTRecipe)


def read_recipe(kind: type[Recipe], path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file as `guide` does.

    Args:
        kind: `TrainRecipe` or `SFTRecipe`.
        path: the YAML file.
        overrides: `field=value` texts that win over the file, e.g. `loss.beta=0.01`.

    Raises:
        ValueError: no such file, an unknown key, a wrong type or a contradiction; names the field.
    """
    parser = recipe_parser(kind, exit_on_error=False)
    try:
        parsed = parser.parse_args(["--recipe", str(path), *(f"--{override}" for override in overrides)])
    except ArgumentError as error:
        raise ValueError(f"{path}: {error}") from None
    return build_recipe(kind, parser, parsed)


def write_recipe(recipe: TrainRecipe | SFTRecipe) -> str:
    """A recipe as YAML, every field said."""
    import yaml

    def plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in items}

    return yaml.safe_dump(dataclasses.asdict(recipe, dict_factory=plain), sort_keys=False, allow_unicode=True)


def recipe_parser(kind: type[Recipe], **options: Any) -> ArgumentParser:
    """A command-line parser for one kind of recipe; `options` go to the parser."""
    parser = ArgumentParser(**options)
    parser.add_argument("--recipe", action=ActionConfigFile, help="a YAML file with the fields below")
    parser.add_class_arguments(kind, as_group=True)
    return parser


def build_recipe(kind: type[Recipe], parser: ArgumentParser, parsed: Namespace) -> Recipe:
    """The typed record of parsed options; ValueError for contradictions."""
    instances = parser.instantiate(parsed)
    return kind(**{field.name: instances[field.name] for field in dataclasses.fields(kind)})
