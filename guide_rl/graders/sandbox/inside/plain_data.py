"""Plain values <-> JSON text, so that a value can cross from a process that nobody trusts without bringing any code.

Plain are None, booleans, numbers (with Decimal and Fraction), texts, bytes, dates and times, lists, tuples, dicts, sets,
ranges, deques, arrays, iterators (as what they hold) and instances of the classes that both sides know by name.
Everything else arrives as an `Opaque`.
"""

import inspect
import json
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

LONGEST_ITERATOR = 10**6
_ATOMS = frozenset({type(None), bool, float, str})
_FEW = 2**53
"""Integers from here on travel as hexadecimal digits, which take linear time to read."""


class Opaque:
    """Stands for a value that is not plain; whoever asks anything of it learns that it is wrong."""

    def _wrong(self, *_: object) -> Any:
        raise AssertionError("no plain value")

    __hash__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _wrong  # type: ignore[assignment]
    __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __float__ = __index__ = _wrong
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __abs__ = __neg__ = __str__ = __repr__ = _wrong


def dumps(value: Any, classes: Mapping[str, type]) -> str:
    """The JSON text of a value; instances of `classes` keep their attributes, and who is the same object as whom."""
    return _Writer(classes).text(value)


def loads(text: str, classes: Mapping[str, type]) -> Any:
    """The value of a JSON text; runs nothing of it. ValueError and others where it is none of ours."""
    return _Reader(classes).value(json.loads(text))


class _Writer:
    """Writes one value; objects go to a table, so that long linked lists are no deep recursion."""

    def __init__(self, classes: Mapping[str, type]) -> None:
        self.classes = classes
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}

    def text(self, value: Any) -> str:
        """The JSON text."""
        top, table, done = self.write(value), [], 0
        while done < len(self.objects):
            item = self.objects[done]
            table.append([type(item).__name__, [[key, self.write(v)] for key, v in vars(item).items()]])
            done += 1
        return json.dumps([top, table])

    def write(self, value: Any) -> Any:
        """What stands for a value; {tag: ...} for all but atoms and lists."""
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is list:
            return [self.write(item) for item in value]
        if isinstance(value, int):
            number = int(value)
            return number if -_FEW < number < _FEW else {"n": hex(number)}
        for base, tag in _SEQUENCES:
            if isinstance(value, base):
                return {tag: [self.write(item) for item in islice(value, LONGEST_ITERATOR)]}
        if isinstance(value, dict):
            return {"d": [[self.write(key), self.write(item)] for key, item in dict.items(value)]}
        if isinstance(value, str | float):
            return str.__str__(value) if isinstance(value, str) else float(value)
        if isinstance(value, bytes | bytearray):
            return {"b" if isinstance(value, bytes) else "B": bytes(value).hex()}
        if isinstance(value, complex):
            return {"c": [value.real, value.imag]}
        if isinstance(value, range):
            return {"r": [self.write(part) for part in (value.start, value.stop, value.step)]}
        if kind in _MADE:
            _, parts = _MADE[kind]
            return {kind.__name__: [self.write(part) for part in parts(value)]}
        if kind.__name__ in self.classes and hasattr(value, "__dict__"):
            if id(value) not in self.numbers:
                self.numbers[id(value)] = len(self.objects)
                self.objects.append(value)
            return {"o": self.numbers[id(value)]}
        return {"?": None}


_SEQUENCES: tuple[tuple[Any, str], ...] = (
    (list, "l"),
    (tuple, "t"),
    (set, "s"),
    (frozenset, "f"),
    (deque, "q"),
    (Iterator, "i"),
)
_MADE: dict[type, tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]]]] = {
    Decimal: (Decimal, lambda value: (str(value),)),
    Fraction: (Fraction, lambda value: (value.numerator, value.denominator)),
    timedelta: (timedelta, lambda value: (value.days, value.seconds, value.microseconds)),
    array: (array, lambda value: (value.typecode, value.tolist())),
    **{kind: (kind.fromisoformat, lambda value: (value.isoformat(),)) for kind in (date, datetime, time)},
}
"""Of the standard library: what makes such a value of its parts, and the parts."""


def _may_be_set(kind: type, name: str) -> bool:
    """Whether a value may put something in front of what its class defines: of a default, not of a method or property."""
    default = inspect.getattr_static(kind, name, None)
    return not (callable(default) or hasattr(type(default), "__get__"))


class _Reader:
    """Reads one value."""

    def __init__(self, classes: Mapping[str, type]) -> None:
        self.classes = classes
        self.objects: list[Any] = []

    def value(self, data: Any) -> Any:
        """The value of parsed JSON text."""
        top, table = data
        self.objects = [object.__new__(self.classes[name]) for name, _ in table]
        for item, (_, attributes) in zip(self.objects, table, strict=True):
            for key, attribute in attributes:
                if _may_be_set(type(item), key):
                    vars(item)[str(key)] = self.read(attribute)
        return self.read(top)

    def read(self, data: Any) -> Any:
        """The value of one entry."""
        if type(data) is list:
            return [self.read(item) for item in data]
        if type(data) is not dict:
            return data
        ((tag, content),) = data.items()
        return _READ[tag](content, self)


def _items(make: Callable[[list[Any]], Any]) -> Callable[[Any, _Reader], Any]:
    """Reads what holds items."""
    return lambda content, reader: make([reader.read(item) for item in content])


def _made(make: Callable[..., Any]) -> Callable[[Any, _Reader], Any]:
    """Reads what is made of its parts."""
    return lambda content, reader: make(*map(reader.read, content))


_READ: dict[str, Callable[[Any, _Reader], Any]] = {
    "n": lambda content, reader: int(content, 16),
    "l": _items(list),
    "t": _items(tuple),
    "s": _items(set),
    "f": _items(frozenset),
    "q": _items(deque),
    "i": _items(iter),
    "d": lambda content, reader: {reader.read(key): reader.read(item) for key, item in content},
    "b": lambda content, reader: bytes.fromhex(content),
    "B": lambda content, reader: bytearray.fromhex(content),
    "c": lambda content, reader: complex(*content),
    "r": lambda content, reader: range(*map(reader.read, content)),
    "o": lambda content, reader: reader.objects[content],
    "?": lambda content, reader: Opaque(),
    **{kind.__name__: _made(make) for kind, (make, _) in _MADE.items()},
}
