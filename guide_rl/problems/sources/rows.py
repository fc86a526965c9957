"""What a source gives."""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
"""Column -> value."""

NumberedRow = tuple[int, Row | str]
"""The row's number in its source, from 1, and the row, or why it is none."""
