"""The code in a model's text: its last fenced block, or the text without a fence. Linear in the length of the text.

A fence begins a block at the start of a line or behind what introduces it ("The code: ```python", "1. ```", "<answer>```").
It ends one whatever follows ("```</answer>", "```<|im_end|>", "``` This works because"), unless that is a language, and
behind code too ("return x```"). One that is never closed goes on to the end. Empty blocks do not count where there are
others. Blocks in the last <answer> go first, then those after </think>. Without a fence the code is all that these hold.
"""

import re
from functools import lru_cache

_FENCE = re.compile(r"^((?:[^`~\n]++|(?!```|~~~)[`~])*+)(`{3,}+|~{3,}+)([^`\n]*+)$\n?", re.MULTILINE)
"""A line with a fence: what is before it, the fence, what it says."""
_LANGUAGE = re.compile(r"\{.*|(?i:py)\w*([ :{].*)?|[\w.+#-]*[\w+#]([ :{].*=.*)?")
"""`python`, `Python 3`, `text title="a b"`, `{.python}`: no sentence."""
_QUOTES = re.compile(r"#|'''|\"\"\"")
"""Where one of these is before it in a block, a fence belongs to the code."""


def code_of(text: str) -> str:
    """The code, as far to the left as its fence: see the module's first lines."""
    said = text.rpartition("</think>")[2]
    _, tag, answer = said.rpartition("<answer>")
    answer = answer.partition("</answer>")[0] if tag else said
    blocks = [_last_block(part) for part in dict.fromkeys((answer, said if tag else text))]
    return next(filter(None, blocks), "" if "" in blocks else answer)


def _last_block(text: str) -> str | None:
    """The last fenced block that holds anything, "" where none does, None where there is no fence."""
    found: tuple[int, int, str] | None = None
    fence, indent, begun = "", "", 0
    for line in _FENCE.finditer(text):
        before, mark, says = line.groups()
        introduced, language = bool(before) and not before.isspace(), _is_language(says[:200])
        if introduced and (language is False or mark[0] == "~" or (fence and _QUOTES.search(before))):
            continue
        if fence and not language and not mark.startswith(fence):
            continue
        ended = line.start(2) if introduced and not language else line.start()
        if fence and not text[begun:ended].isspace() and begun < ended:
            found = begun, ended, indent
        if fence and not language:
            fence = ""
        else:
            fence, indent, begun = mark, before, line.end()
    if fence and text[begun:].strip():
        found = begun, len(text), indent
    return _moved(text[found[0] : found[1]], found[2]) if found else "" if begun else None


@lru_cache(maxsize=64)
def _is_language(says: str) -> bool | None:
    """Whether what stands behind a fence names a language; None for nothing or a tag."""
    says = says.strip()
    return None if not says or says.startswith(("<", "[/")) else bool(_LANGUAGE.fullmatch(says))


def _moved(code: str, indent: str) -> str:
    """The code to the left by as much white space as the line of its fence begins with, and its first line too."""
    first = code.lstrip("\r\n")
    width = min(len(text) - len(text.lstrip(" \t")) for text in (indent, first))
    return re.sub(rf"^[ \t]{{1,{width}}}", "", code, flags=re.MULTILINE) if width else code
