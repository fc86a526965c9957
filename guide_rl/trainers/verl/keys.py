"""Dotted keys of verl's configuration: set those that it has, name the nearest to those that it has not."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any


def flat(mapping: Mapping[str, Any], config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings, nested or with dots, as dotted keys and values; where the configuration has no keys, all there is one value."""
    for key, value in mapping.items():
        first, _, rest = str(key).partition(".")
        value = {rest: value} if rest else value
        known = config.get(first.lstrip("+"))
        if known and isinstance(value, Mapping) and isinstance(known, Mapping):
            yield from flat(value, known, f"{prefix}{first}.")
        else:
            yield f"{prefix}{first}", value


def set_key(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key that the configuration has; with + anywhere in front of a part, also one that it has not.

    Raises:
        ValueError: there is no such key (names the nearest), or what it holds is of another kind.
    """
    path = key.replace("+", "").split(".")
    if not all(path):
        raise ValueError(f"verl.{key}: a part of this key has no name")
    place = config
    for part in path[:-1]:
        place = place[part]
    if path[-1] not in place and "+" not in key:
        plain = ".".join(path)
        raise ValueError(
            f"verl.{plain}: verl has no such key{_nearest(config, path)} (verl.+{plain} adds it all the same)"
        )
    if "+" not in key and not _alike(place[path[-1]], value):
        plain, held = ".".join(path), _KINDS[type(place[path[-1]])]
        raise ValueError(f"verl.{plain}: verl has {held} here, not {value!r} (verl.+{plain} sets it all the same)")
    place[path[-1]] = value


_KINDS = {dict: "a section", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "text"}
"""What a default of verl's is, in words."""


def _alike(default: Any, value: Any) -> bool:
    """Whether a value may stand for a default of verl's: where this is null or refers to another key, any may."""

    def refers(text: Any) -> bool:
        return isinstance(text, str) and "${" in text

    if default is None or refers(default) or refers(value):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return type(default) is type(value)
    if isinstance(default, int | float):
        return isinstance(value, int | float)
    return isinstance(value, type(default)) or (isinstance(default, str) and value is None)


def _nearest(config: Mapping[str, Any], path: list[str]) -> str:
    """The key that is spelled most like the one at a path: beside it, of the same name elsewhere, or anywhere."""
    names = list(_names(config))
    section, name = ".".join(path[:-1]), path[-1]
    beside = [known.rpartition(".")[2] for known in names if known.rpartition(".")[0] == section]
    close = (
        [".".join([*path[:-1], match]) for match in get_close_matches(name, beside, 1)]
        or sorted((known for known in names if known.endswith(f".{name}")), key=_remoteness)
        or get_close_matches(".".join(path), names, 1)
    )
    return f"; did you mean verl.{close[0]}?" if close else ""


def _remoteness(name: str) -> tuple[bool, int]:
    """Smaller for keys that one is more likely to mean: in the parts that Guide uses, and high up."""
    return name.split(".")[0] not in ("trainer", "ray_kwargs", "actor_rollout_ref", "critic"), name.count(".")


def _names(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all sections and keys."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{key}.")
