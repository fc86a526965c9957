"""The rules of a column map: what takes an answer, a solution or points out of what a column holds."""

import ast
import base64
import io
import json
import pickle
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from guide_rl.graders.answer_text import final_answer

_LARGEST_TESTS = 2**28


def after_hashes(text: str) -> str:
    """What stands after the last `####` (GSM8K)."""
    _, mark, after = text.rpartition("####")
    if not mark:
        raise ValueError("no ####")
    return after.strip()


def boxed_hashes(text: str) -> str:
    r"""GSM8K's `#### 18` as `The answer is \boxed{18}.`, which graders can read."""
    return f"{text.rpartition('####')[0].rstrip()}\nThe answer is \\boxed{{{no_commas(after_hashes(text))}}}."


def no_calculator(text: str) -> str:
    """Without GSM8K's calculator marks `<<...>>`."""
    return re.sub(r"<<[^<>]*>>", "", text)


def no_commas(text: str) -> str:
    """Without commas, which separate thousands."""
    return text.replace(",", "")


def no_dollars(text: str) -> str:
    """Without `$`."""
    return text.replace("$", "").strip()


def last_boxed(text: str) -> str:
    r"""What stands in the last `\boxed{...}`, `\fbox{...}` or `\boxed 5`."""
    boxes = re.sub(r"\\(?:boxed|fbox)\s*(\{|[0-9A-Za-z])", _box, text)
    if not (answer := final_answer(boxes)):
        raise ValueError("no \\boxed{...}")
    return answer


def _box(found: re.Match[str]) -> str:
    """One spelling for the beginning of a box, or for a box of one sign without braces."""
    return "\\boxed{" if found[1] == "{" else f"\\boxed{{{found[1]}}}"


def first(values: Sequence[Any]) -> Any:
    """The first of a list."""
    if isinstance(values, str):
        raise TypeError("a text, not a list")
    if not values:
        raise ValueError("an empty list")
    return values[0]


def integer(value: object) -> str:
    """A whole number without leading zeros, from `025`, `27.0` or 27."""
    text = str(value).strip()
    if not re.fullmatch(r"[+-]?[0-9]+(\.0*)?", text):
        raise ValueError(f"{text!r} is no whole number")
    return str(int(text.partition(".")[0]))


def strip(text: str) -> str:
    """Without spaces around it."""
    return text.strip()


def from_json(text: str) -> Any:
    """The value of a JSON text, or of a list or dict as Python writes it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError):
            raise ValueError(f"neither JSON nor a list or dict of Python: {text:.80}") from None


def test_cases(text: str) -> list[Any]:
    """LiveCodeBench's test cases: JSON, or JSON in a pickled text in zlib in base64. Nothing in a pickle is run."""
    if not text.startswith("["):
        text = _unpacked(text)
    cases = json.loads(text)
    if not isinstance(cases, list):
        raise ValueError("test cases that are no list")
    return cases


def _unpacked(text: str) -> Any:
    """The value of a pickle in zlib in base64."""
    unpacker = zlib.decompressobj()
    try:
        packed = unpacker.decompress(base64.b64decode(text, validate=True), _LARGEST_TESTS)
        if not unpacker.eof:
            raise ValueError(f"test cases of more than {_LARGEST_TESTS:,} bytes, or cut off")
        return _TextUnpickler(io.BytesIO(packed)).load()
    except (zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"test cases that cannot be unpacked: {error}") from error


class _TextUnpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Reads pickles of plain values; whatever names a class or a function, which pickles may call, is refused.

    The one in Python: that in C makes room for as many values as the pickle says there are, which may be all memory.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"a pickle that asks for {module}.{name}")


RULES: dict[str, Callable[[Any], Any]] = {
    rule.__name__: rule
    for rule in (
        after_hashes,
        boxed_hashes,
        no_calculator,
        no_commas,
        no_dollars,
        last_boxed,
        first,
        integer,
        strip,
        from_json,
        test_cases,
    )
}
"""The rules by name: value -> value; ValueError where there is nothing to take, another error where the type is wrong."""
