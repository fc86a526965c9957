"""Recipes: YAML files and `field=value` overrides <-> the typed records of `config`.

jsonargparse reads and converts the values. What it says of a mistake is turned into one line here: the file or the
field, what is wrong with it, and what to write.
"""

import argparse
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import (
    ActionConfigFile,
    ArgumentError,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    get_loader,
    set_parsing_settings,
)

from guide_rl.config import EvaluateRecipe, GuidanceRecipe, ProblemsRecipe, SFTRecipe, TrainRecipe

set_parsing_settings(docstring_parse_attribute_docstrings=True)

Recipe = TypeVar("Recipe", TrainRecipe, SFTRecipe, ProblemsRecipe, GuidanceRecipe, EvaluateRecipe)


def read_recipe(kind: type[Recipe], path: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file as `guide` does.

    Args:
        kind: one of the kinds of recipe in `config`.
        path: the YAML file, or several: what a later one says wins, field by field.
        overrides: `field=value` texts that win over the file, e.g. `loss.beta=0.01`.

    Raises:
        ValueError: no such file, an unknown field, a wrong type or a contradiction; names file or field.
    """
    paths = [path] if isinstance(path, str | Path) else path
    return parse_recipe(kind, recipe_parser(kind), [str(path) for path in paths], overrides)[0]


def write_recipe(recipe: TrainRecipe | SFTRecipe | ProblemsRecipe | GuidanceRecipe | EvaluateRecipe) -> str:
    """A recipe as YAML, every field said."""

    def plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in items}

    values = dataclasses.asdict(recipe, dict_factory=plain)
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes also the texts that only jsonargparse would read as numbers, such as 1e-5."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class RecipeParser(ArgumentParser):
    """A parser whose help shows the fields of a recipe as one types them, and that raises its errors."""

    def __init__(self, **options: Any) -> None:
        ours = {"usage": argparse.SUPPRESS, "formatter_class": _FieldsAsTyped, "exit_on_error": False}
        super().__init__(**{**ours, "print_config": None, **options})


def recipe_parser(kind: type[Recipe], **options: Any) -> RecipeParser:
    """A command-line parser for one kind of recipe; `options` go to the parser."""
    parser = RecipeParser(**options)
    parser.add_argument("--recipe", action=_RecipeFile, help=argparse.SUPPRESS)
    parser.add_class_arguments(kind, as_group=True)
    sections = {name for name, hint in fields_of(kind).items() if dataclasses.is_dataclass(hint)}
    for action in parser._actions:
        if action.dest in sections:  # `--loss FILE` is jsonargparse's, and nothing that a user needs to know.
            action.help = argparse.SUPPRESS
    return parser


def parse_recipe(
    kind: type[Recipe],
    parser: ArgumentParser,
    paths: Sequence[str],
    overrides: Sequence[str],
    options: Sequence[str] = (),
) -> tuple[Recipe, Namespace]:
    """Read recipe files, then `field=value` overrides, which win, and the options that were added to the parser.

    Returns:
        The recipe, and the parsed options.

    Raises:
        ValueError: as in `read_recipe`.
    """
    fields = fields_of(kind)
    for path in paths:
        _check_names(fields, _file_values(path), f"{path}: ")
    files = [get_loader("yaml")(Path(path).read_text(encoding="utf-8")) for path in paths]
    overrides = _whole_mappings(files, overrides, fields)
    _check_names(fields, _override_values(overrides, fields), "")
    arguments: list[str] = [f"--recipe={path}" for path in paths] + [f"--{override}" for override in overrides]
    try:
        parsed = parser.parse_args(arguments + list(options))
        instances = parser.instantiate(parsed)
    except (ArgumentError, ValueError) as error:
        raise ValueError(_one_line(str(error), fields)) from None
    return kind(**{field.name: instances[field.name] for field in dataclasses.fields(kind)}), parsed


def nearest(name: str, names: Sequence[str]) -> str:
    """`; did you mean ...?` with the one of the names that is spelled most like `name`, or where to find them all."""
    return "".join(f"; did you mean {match}?" for match in get_close_matches(name, names, 1)) or "; --help lists all"


class _RecipeFile(ActionConfigFile):  # type: ignore[misc]
    """`--recipe FILE`, whose errors name the file."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (TypeError, ValueError, ArgumentError) as error:
            raise ValueError(f"{values}: {error}") from error


class _FieldsAsTyped(DefaultHelpFormatter):
    """Shows a field as one types it: `loss.beta=BETA`."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if action.dest not in _all_fields():
            return super()._format_action_invocation(action)
        return f"{action.dest}={self._format_args(action, self._get_default_metavar_for_optional(action))}"


@cache
def _all_fields() -> set[str]:
    """The names of all fields of all kinds of recipe."""
    kinds = (TrainRecipe, SFTRecipe, ProblemsRecipe, GuidanceRecipe, EvaluateRecipe)
    return {name for kind in kinds for name in fields_of(kind)}


def fields_of(kind: type, prefix: str = "") -> dict[str, Any]:
    """Dotted names of all fields and sections of a record, with their types: `loss`, `loss.beta`, ...

    Where a field maps names of the user's to records, `*` stands for the name: `sources.*`, `sources.*.path`.
    """
    fields = {}
    for name, hint in get_type_hints(kind).items():
        fields[prefix + name] = hint
        for section in _sections(hint):
            inner = prefix + name
            if get_origin(hint) is dict:
                fields[inner := f"{inner}.*"] = section
            fields |= fields_of(section, f"{inner}.")
    return fields


def _known(name: str, fields: Mapping[str, Any]) -> str:
    """The field's name with `*` for the user's own part of it, where that is a field; else the name itself."""
    first, _, rest = name.partition(".")
    general = f"{first}.*.{rest.partition('.')[2]}".rstrip(".")
    return general if name not in fields and general in fields else name


def _sections(hint: Any) -> list[Any]:
    """The records in a field's type: none, or the one that is maybe null."""
    return [part for part in (hint, *get_args(hint)) if dataclasses.is_dataclass(part)]


class _EachKeyOnce(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key that stands twice instead of taking the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the loader's own."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"{key.value} stands twice, the second time in line {line}")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _file_values(path: str) -> dict[str, Any]:
    """What a recipe file holds, unconverted; ValueError when it is no YAML file of fields."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; a recipe is a YAML file, an override field=value")
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _EachKeyOnce)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds no fields; write one a line, such as `seed: 0`")
    return values


def _override_values(overrides: Sequence[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields and unconverted values of `field=value` texts."""
    values = {}
    for override in overrides:
        name, _, text = override.partition("=")
        try:
            values[name] = text if fields.get(_known(name, fields)) is str else yaml.safe_load(text)
        except yaml.YAMLError:
            values[name] = text
    return values


def _whole_mappings(
    files: Sequence[Mapping[str, Any]], overrides: Sequence[str], fields: Mapping[str, Any]
) -> list[str]:
    """The overrides, with one for all of each mapping of free keys; what a later file or override says of a key wins.

    Such fields are `verl`, `vllm`, `chat.parameters`; `verl.trainer.nnodes=2` sets one key in them. Keys with dots are split.
    """
    free = [name for name, hint in fields.items() if hint == dict[str, Any]]
    whole: dict[str, dict[str, Any]] = {}
    for values in files:
        for name in free:
            value: Any = values
            for key in name.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, Mapping):
                _set_key(whole, [name], value)
    rest = []
    for override in overrides:
        name, _, text = override.partition("=")
        field = next((field for field in free if f"{name}.".startswith(f"{field}.")), None)
        try:
            value = get_loader("yaml")(text)
        except yaml.YAMLError:
            value = text
        if field is None or (name == field and not isinstance(value, Mapping)):
            rest.append(override)
        elif name == field:
            whole.pop(field, None)
            _set_key(whole, [field], value)
        else:
            _set_key(whole, [field, *name.removeprefix(f"{field}.").split(".")], value)
    return rest + [f"{name}={json.dumps(value, default=str)}" for name, value in whole.items()]


def _set_key(mapping: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set what stands at a path of keys; of a mapping each key, with its dots split."""
    for key in path[:-1]:
        if not isinstance(mapping.get(key), dict):
            mapping[key] = {}
        mapping = mapping[key]
    if not isinstance(value, Mapping):
        mapping[path[-1]] = value
        return
    if not value or not isinstance(mapping.get(path[-1]), dict):
        mapping[path[-1]] = {}
    for key, inner in value.items():
        _set_key(mapping[path[-1]], str(key).split("."), inner)


def _check_names(fields: Mapping[str, Any], values: Mapping[Any, Any], where: str, prefix: str = "") -> None:
    """ValueError for an unknown field, a section that holds no fields, or null where it means nothing."""
    for key, value in values.items():
        name = _known(f"{prefix}{key}", fields)
        if name not in fields:
            section, _, last = name.rpartition(".")
            if get_origin(fields.get(_known(section, fields))) is dict:
                raise ValueError(f"{where}{name}: set all of it at once: {section}={{{last}: {value}, ...}}")
            raise ValueError(f"{where}unknown field {name}{nearest(name, list(fields))}")
        hint = fields[name]
        if dataclasses.is_dataclass(hint) and not isinstance(value, Mapping):
            first = dataclasses.fields(hint)[0].name
            raise ValueError(f"{where}{name} is a section; set its fields, such as {name}.{first}")
        if value is None and NoneType not in get_args(hint):
            raise ValueError(f"{where}{name} must be {_words(hint)}, not null")
        if isinstance(value, Mapping) and _sections(hint):
            _check_names(fields, value, where, f"{prefix}{key}.")


def _one_line(message: str, fields: Mapping[str, Any]) -> str:
    """What jsonargparse says of a mistake, in a line: the field, what it must be and what it is."""
    if missing := re.search("arguments are required: (.*)", message):
        return f"not set: {missing[1]}; set it in a recipe, or as {missing[1].split(', ')[0]}=VALUE"
    where = message.partition('Parser key "')[0]
    keys = re.findall('Parser key "(.+?)"', message)
    value = re.search("(?:Got|Given) value: (.*)", message)
    for name in (".".join(keys), ".*.".join(keys), *keys[:1]):
        if name in fields and value:
            return f"{where}{name} must be {_words(fields[name])}, not {value[1]}"
    contradiction = re.search(r"Errors:\s+- (.*)", message)
    return contradiction[1] if contradiction else " ".join(message.split())


def _words(hint: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return (
            "fields such as {" + ", ".join(f"{field.name}: {field.default}" for field in dataclasses.fields(hint)) + "}"
        )
    if origin is Literal:
        return "one of " + ", ".join(parts)
    if origin is list:
        choices = get_args(parts[0])
        return f"a list of {', '.join(choices)}, such as [{choices[0]}]" if choices else "a list such as [a, b]"
    if origin is dict:
        return "fields such as {name: value}"
    if origin is tuple:
        return f"a list of {len(parts)}, each {_words(parts[0])}"
    if parts:
        return " or ".join(_words(part) for part in parts)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
    return words.get(hint, "a value")
