"""Key-value rows of a batch whose rows come and go.

All rows write the same column; row r owns the columns start_r .. column, so a decode step is one slice
assignment per layer, nothing grows by concatenation, and a row that leaves is overwritten by the last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

GROUPED_ATTENTION = "guide_grouped"
"""Name under which `grouped_attention` is registered with transformers."""
ROOM = 256
"""Columns that the buffers get beyond the live ones when they grow."""
ROWS_AT_ONCE = 16
"""Rows moved together within the buffers: bounds the copy that a move needs."""


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one new token per row; query heads that share a key head are taken as its queries.

    transformers' own function, where there is a mask, first copies the keys and values once per query head.

    Args:
        module: the attention layer.
        query: [N, heads, 1, D].
        key: [N, key heads, columns, D], value likewise.
        attention_mask: bool [N, 1, 1, columns], True where a row attends.
        dropout: must be 0; sampling runs in eval mode.
        scaling: of the scores; 1/sqrt(D) where None.
        kwargs: what architectures add to attention; score caps and sinks are refused.

    Returns:
        [N, 1, heads, D], and no weights.
    """
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError(
            f"{type(module).__name__} caps its attention scores or has attention sinks; load the model with "
            'attn_implementation="eager" to sample from it in this process'
        )
    rows, heads, _, width = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    attended = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return attended.reshape(rows, 1, heads, -1), None


AttentionInterface.register(GROUPED_ATTENTION, grouped_attention)


@dataclass
class _Span:
    """What the layers of one cache share: rows 0 .. rows-1 live in columns first .. column-1; the next is `column`."""

    rows: int = 0
    first: int = 0
    column: int = 0


class _RowLayer(CacheLayerMixin):
    """Keys and values of one layer, [places, key heads, capacity, D] each."""

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, span: _Span) -> None:
        super().__init__()
        self.span = span

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Start empty, with the shapes of prefilled rows, in the dtype that attention casts them to."""
        device = key_states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else key_states.dtype
        self.keys, self.values = (
            t.new_empty(0, t.shape[1], 0, t.shape[3], dtype=dtype) for t in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write one token per row and return what the rows may attend to."""
        span = self.span
        self.keys[: span.rows, :, span.column] = key_states[:, :, 0]
        self.values[: span.rows, :, span.column] = value_states[:, :, 0]
        live = (slice(span.rows), slice(None), slice(span.first, span.column + 1))
        return self.keys[live], self.values[live]

    def reallocate(self, places: int, capacity: int, column: int) -> None:
        """Move the live part to new buffers so that it ends before `column`."""
        self.keys, self.values = (self._moved(t, places, capacity, column) for t in (self.keys, self.values))

    def shift(self, column: int) -> None:
        """Move the live part within the buffers so that it ends before `column`."""
        span = self.span
        for t in (self.keys, self.values):
            for row in range(0, span.rows, ROWS_AT_ONCE):
                block = t[row : min(row + ROWS_AT_ONCE, span.rows)]
                block[:, :, column - span.column + span.first : column] = block[:, :, span.first : span.column].clone()

    def _moved(self, old: Tensor, places: int, capacity: int, column: int) -> Tensor:
        span = self.span
        new = old.new_empty(places, old.shape[1], capacity, old.shape[3])
        new[: span.rows, :, column - span.column + span.first : column] = old[: span.rows, :, span.first : span.column]
        return new

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that `update` returns."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """How many columns are live."""
        return self.span.column - self.span.first

    def get_max_cache_shape(self) -> int:
        """-1: the buffers grow as needed."""
        return -1


class RowCache(Cache):
    """Key-value rows 0 .. N-1 of all layers, passed to a model as `past_key_values` for one new token per row."""

    layers: list[_RowLayer]  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._span = _Span()
        self._starts: list[int] = []
        self._starts_N1 = torch.empty(0, 1, dtype=torch.long)

    def append(self, prefilled: Any, lengths_U: Sequence[int], source_N: Sequence[int]) -> None:
        """Add rows, each a copy of one prefilled prompt.

        Args:
            prefilled: a transformers Cache with the keys and values of U prompts, padded on the left.
            lengths_U: their lengths in tokens.
            source_N: for each new row, the prompt that it continues.
        """
        if not self.layers:
            self.layers = [_RowLayer(self._span) for _ in prefilled.layers]
            for own, new in zip(self.layers, prefilled.layers, strict=True):
                own.lazy_initialization(new.keys, new.values)
        span, longest = self._span, max(lengths_U)
        self._reserve(span.rows + len(source_N), longest)
        left = span.column - longest
        for own, new in zip(self.layers, prefilled.layers, strict=True):
            for t, block in ((own.keys, new.keys), (own.values, new.values)):
                # Masked columns must hold finite numbers: a weight of 0 does not hide a NaN.
                t[: span.rows, :, left : span.first] = 0
                rows = t[span.rows : span.rows + len(source_N)]
                rows[:, :, span.first : left] = 0
                rows[:, :, left : span.column] = block[source_N]
        self._set_starts([*self._starts, *(span.column - lengths_U[u] for u in source_N)])

    def release(self, finished: Sequence[int]) -> list[int]:
        """Drop rows; the last rows move into the gaps.

        Args:
            finished: the rows to drop.

        Returns:
            For each place that stays, the row that now lies there.
        """
        span, gone = self._span, set(finished)
        remaining = span.rows - len(gone)
        holes = sorted(row for row in gone if row < remaining)
        movers = [row for row in range(remaining, span.rows) if row not in gone]
        order = list(range(remaining))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        for layer in self.layers if holes else []:
            for t in (layer.keys, layer.values):
                live = t[:, :, span.first : span.column]
                live[holes] = live[movers]
        self._set_starts([self._starts[row] for row in order])
        return order

    def open_column(self) -> tuple[Tensor, Tensor]:
        """Make room for one more token per row.

        Returns:
            The token's positions [N, 1] and its mask [N, 1, 1, columns], True where a row attends (itself included).
        """
        span = self._span
        self._reserve(span.rows, 0)
        columns = torch.arange(span.first, span.column + 1, device=self._starts_N1.device)
        return span.column - self._starts_N1, (columns >= self._starts_N1)[:, None, None]

    def close_column(self) -> None:
        """Count the column that the forward pass has written."""
        self._span.column += 1

    def _set_starts(self, starts: list[int]) -> None:
        """Take the rows' first columns, on the host and on the device."""
        self._starts, self._span.rows = starts, len(starts)
        self._span.first = min(starts, default=self._span.column)
        self._starts_N1 = torch.tensor(starts, dtype=torch.long, device=self.layers[0].keys.device)[:, None]

    def _reserve(self, rows: int, before: int) -> None:
        """Make sure that there are `rows` rows, `before` columns left of the write column, and the write column.

        Dead leading columns are given up first; the buffers grow only where that frees too few.
        """
        span, (places, _, capacity, _) = self._span, self.layers[0].keys.shape
        full = not before <= span.column < capacity
        column = max(span.column - span.first, before) if full else span.column
        crowded = full and column + ROOM // 4 > capacity
        if rows > places or crowded:
            for layer in self.layers:
                layer.reallocate(max(rows, places), column + ROOM if crowded else capacity, column)
        elif full:
            for layer in self.layers:
                layer.shift(column)
        if column != span.column:
            moved = column - span.column
            span.column = column
            self._set_starts([start + moved for start in self._starts])
