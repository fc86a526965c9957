"""How records refuse what they cannot mean."""

from collections.abc import Callable


def require(ok: bool, message: str) -> None:
    """Raise ValueError(message) unless ok."""
    if not ok:
        raise ValueError(message)


def require_range(record: object, test: Callable[[float], bool], bounds: str, *names: str, prefix: str = "") -> None:
    """Raise ValueError naming the first of the fields whose value fails the test, or no float32 holds; None passes."""
    for name in names:
        value = getattr(record, name)
        require(value is None or test(value), f"{prefix}{name} must be {bounds}, not {value}")
        require(value is None or abs(value) <= LARGEST, f"{prefix}{name} must be finite, in float32 too, not {value}")


LARGEST = 3e38
"""About the largest float32."""
