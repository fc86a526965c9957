"""The report as one `index.html` that needs nothing else: results, every curve, and the browser of rollouts.

The page's own parts lie in `page/`. The data is JSON, packed with gzip and base64 into blocks that the page unpacks: base64
has no character that HTML or a script reads as anything but text, so what a model wrote can end neither. Texts and token
ratios are in blocks of their own, so that the list of problems shows before they are unpacked.
"""

import base64
import gzip
import hashlib
import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from guide_rl.atomic_files import put_text

PARTS = Path(__file__).with_name("page")
SCRIPTS = ("elements", "data", "charts", "results", "curves", "list", "problem", "rollout", "rollouts", "main")
"""Files `*.js`, in the order in which they run."""
SHORT = (
    "problem",
    "step",
    "model",
    "index",
    "guided",
    "greedy",
    "reward",
    "advantage",
    "correct",
    "verdict",
    "finish",
    "tokens",
)
"""Columns of rollouts that the list of problems needs."""
LONG = {"texts": ("text",), "tokens": ("ratios", "pieces")}
"""Kinds of blocks that are unpacked later, and their columns."""
BLOCK_CHARACTERS = 1_000_000
"""Of rollout texts in a block, about: small enough to be unpacked while a reader waits."""


def write_page(path: Path, data: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all. `data` is what JSON can hold:

    title, made: texts; reload_s: load the page anew every so many seconds (none: never); summary, notes: lists of texts;
    tables: [{title, caption, header: [text], rows: [[{text, best?, head?}]], files: [name beside the page]}];
    figures: [{title, caption, svg, files}]; runs: [{name, kind, recipe, metrics: {key: {x: [step], y: [number]}}}];
    metric_help: {key: sentence}; problems: [{run (an index into runs), set, id, question, answer, guidance?, stratum}];
    rollouts: columns of one length, those of SHORT and LONG (`problem` is an index into problems).
    A number that is not finite is shown as missing. Raises ValueError where the columns of rollouts do not fit.
    """
    put_text(path, page_html(data))


def page_html(data: Mapping[str, Any]) -> str:
    """The page as text; the same data gives the same text."""
    script = "\n".join((PARTS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    style = (PARTS / "page.css").read_text(encoding="utf-8")
    fields = {
        "policy": f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'",
        "title": html.escape(str(data.get("title", ""))),
        "style": style,
        "script": script,
        "blocks": "\n".join(
            f'<script type="application/gzip" id="{name}">{_packed(value)}</script>' for name, value in _blocks(data)
        ),
    }
    template = (PARTS / "index.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda field: fields[field[1]], template)


def _blocks(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The names of the blocks and what they hold; rollouts stand in the order of their problems."""
    rollouts = data.get("rollouts") or {}
    columns = {name: rollouts.get(name, []) for name in (*SHORT, *chain(*LONG.values()))}
    owners, problems = columns["problem"], len(data.get("problems", []))
    for name, column in columns.items():
        if len(column) != len(owners):
            raise ValueError(f"rollouts: column {name!r} has {len(column)} rows, 'problem' has {len(owners)}")
    wrong = next((owner for owner in owners if not 0 <= owner < problems), None)
    if wrong is not None:
        raise ValueError(f"rollouts: problem {wrong} is not an index into the {problems} problems")
    order = sorted(range(len(owners)), key=owners.__getitem__)
    columns = {name: [column[row] for row in order] for name, column in columns.items()}
    columns["text"] = [text or "" for text in columns["text"]]
    cuts = _cuts(columns["problem"], columns["text"])
    short = {name: columns[name] for name in SHORT}
    yield "main", {**data, "rollouts": short, "cuts": cuts}
    for block, (first, last) in enumerate(pairwise(cuts)):
        for kind, names in LONG.items():
            yield f"{kind}-{block}", {name: columns[name][first:last] for name in names}


def _cuts(owners: Sequence[int], texts: Sequence[str]) -> list[int]:
    """Where blocks of rollouts begin, and the end of the last one; no problem is in two blocks."""
    cuts, characters = [0], 0
    for row, text in enumerate(texts):
        if characters > BLOCK_CHARACTERS and owners[row] != owners[row - 1]:
            cuts.append(row)
            characters = 0
        characters += len(text)
    return [*cuts, len(texts)] if texts else cuts


def _packed(value: Any) -> str:
    """JSON, in gzip, in base64."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), compresslevel=4, mtime=0)).decode("ascii")


def _finite(value: Any) -> Any:
    """A copy with None for numbers that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _hash(text: str) -> str:
    """The source of a content security policy that allows this very text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
