r"""The `choice` grader: the answer to a multiple-choice question, as a letter or as the text of the choice.

The problem's answer is the letter of the right choice; its metadata holds `choices`, the texts of A, B, C ... in the order
in which the question lists them. The last commitment of a text counts: its final answer (`answer_text`), or a sentence after
that, such as "the answer is (B)". Where it has neither, lines that are a choice and nothing else (`B`, `(B)`, `B) 42`, `42`).
A commitment to several choices is wrong: "A or B", all letters, a letter with the text of another choice, one commitment right
behind another ("\boxed{A} or \boxed{B}", "A is correct. B is correct."). One that is taken back at once ("B?", "B is wrong", "I
do not think that the answer is B") is none.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from guide_rl.graders.answer_text import (
    CORRECT,
    MAX_ANSWER,
    NO_ANSWER,
    TOO_LONG,
    WRONG,
    final_span,
    plain,
    plain_number,
)
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Grade, Problem

SEVERAL = Grade(0.0, False, "several answers")

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_READ, _SENTENCES = 20_000, 20
"""How much of the end of a text is read for sentences and lines: characters, and sentences that say what the answer is."""

_EMPHASIS = re.compile(r"\*\*|__|`|^#+ ?", re.MULTILINE)
_QUOTED = re.compile(r"(?<![\w*)])[*_\"'\u201c\u2018]([(\[]?[A-Za-z][)\].]?)[*_\"'\u201d\u2019](?![\w*(])")
_MARKUP = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|rm|it|sf)|mbox)(?=\s?\{)|[${}]|\\[()\[\]]")
_SCRIPT = re.compile(r"([\^_])\{([^{}]*)\}")
_ALONE = r"[(\[]?(?-i:[A-Z])[)\]]?\s?(?:[.!\n]|\Z)"
_SAID = re.compile(
    r"\b(?:(?:(?:answer|choice|option)(?: choice| option| letter)?(?: here)?|(?:correct|right) letter)"
    r"(?:(?: is| would be| must be| should be| =)?:| is| would be| must be| should be| =)"
    r"(?: (?:therefore|thus|hence|clearly|simply|indeed|then)\b,?)?"
    r"|(?:I|we)(?:'d|'ll| will| would)? (?:choose|pick|select|go with)|answer(?=\s{1,3}\()"
    rf"|(?:(?:therefore|thus|hence|so),?|(?:no|wait)[,:]|(?:actually|rather),?)(?: (?:it|that)(?: is|'s))?(?=\s{_ALONE}))"
    r"\s{0,3}|(?<![\w)])(?<!\bor )(?<!\band )(?<!\bif )\(?(?P<letter>(?-i:[A-Z]))\)? is (?:also )?"
    r"(?:(?:the|my) (?:final |correct |right |best )?(?:answer|choice|option)|(?:the )?(?:correct|right|best))\b"
    r"(?! (?:only|if|when|or|about|to)\b|\s?\?)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"^(?:(?:the )?(?:(?:correct|final|right) )?(?:answer|option|choice|letter)(?: is)?[: ]\s*){1,3}", re.IGNORECASE
)
_LONE = re.compile(r"[(\[]?([A-Za-z])[)\]]?[.:,]?")
_LETTERED = re.compile(r"(?:[(\[]([A-Za-z])[)\]]|([A-Za-z])[)\]]|([A-Z])(?![\w'^*/+=-]))\s*([-.:,;\u2013\u2014]?)\s*")
_ANOTHER = re.compile(
    r"(?:(?:[,;/&+|]|\.+|\\(?:lor|land|vee|wedge|cup|cap|to|q?quad|rightarrow)\b|\\[,;: !]"
    r"|(?:[Aa]nd|[Oo]r|maybe|possibly|perhaps|probably|even|also|but)\b)\s*)*(?:[(\[]([A-Za-z])[)\]]|([A-Z])(?![\w']))"
)
_DENIED = re.compile(
    r"[?\u2260]|\(?(?:(?:is|are|was|would be) )?(?:not|wrong|incorrect|false)\b|isn't\b", re.IGNORECASE
)
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|n't|\bnever|\bdoubt)(?: \w+){0,3} that (?:the |my )?(?:(?:correct|right|final|option|choice) )?$",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(r"(?:[\s$\\)\]}*]{0,10}|</answer>\s?)(?:is|was|would be) (?:wrong|incorrect|false|not)\b")
_OR = r"(?:(?:or|and|also|either|maybe|perhaps|possibly)\b[\s,]*)"
_BETWEEN = re.compile(rf"[\s.,;/&|+)\]]*{_OR}*(?:(?:the|my|final|correct|right|best) )*", re.IGNORECASE)
"""All that is between two commitments that are one."""
_RATHER = re.compile(r"no|wait|actually|rather", re.IGNORECASE)
_AROUND = re.compile(r"[{}$*]|</?answer>|\\boxed|\\[()\[\]]")
_AND_ALSO = re.compile(
    rf"[\s.,;$*}})\]]*(?:</answer>\s*)?{_OR}+(?:option |choice )?[(\[]?((?-i:[A-Z]))[)\]]?"
    r"(?=\s*(?:[.;!\n]|\Z)|(?: (?:is|are))?(?: also)? (?:correct|right)\b| (?:too|as well)\b)",
    re.IGNORECASE,
)
_SO_IS = re.compile(r"\b(?:so|as) (?:is|are) (?:option |choice )?[(\[]?([A-Z])[)\]]?(?![\w'])", re.IGNORECASE)
_PLAIN = re.compile(r"[(\[]?([A-Z])[)\]]?(?![\w'])")
_LETTER_AT_END = re.compile(r"[(\[]([A-Za-z])[)\]]\.?$")
_JOINED = re.compile(r"[,;/&|]|\b(?:or|and)\b")
_MARKED = re.compile(r"(?<![\w(])[(\[]?([A-Z])[).:\]](?=\s|$)")
_REASON = r"because|since|as|which|so|for|with|due|by|from|given"
_END_OF_CLAUSE = re.compile(rf"\.(?:\s|$)|[,;]\s(?!(?:or|and)\b|[(\[]?[A-Z][).\]])|(?:^|\s)(?:{_REASON})\b")
_PROSE = re.compile(rf"(?!(?:{_REASON}|and|or|is)\b)[a-z]")


def check(problem: Problem) -> None:
    """Raise GraderSetupError unless the metadata lists the choices and the answer is the letter of one of them."""
    choices = problem.metadata.get("choices")
    texts = (
        [text for text in choices if isinstance(text, str) and text.strip()]
        if isinstance(choices, list | tuple)
        else []
    )
    if not 2 <= len(texts) <= len(LETTERS) or len(texts) < len(choices or ()):
        raise GraderSetupError(
            "grader choice needs metadata with choices, a list of 2 to 26 texts in the order of their letters; add it "
            "(`choices` of a source of `guide problems` does), or choose the grader exact"
        )
    stripped = [text.strip() for text in texts]
    if twice := [text for text in stripped if stripped.count(text) > 1]:
        raise GraderSetupError(f"grader choice: metadata.choices has {twice[0]!r:.40} twice; leave the problem out")
    if problem.answer not in tuple(LETTERS[: len(texts)]):
        last = LETTERS[len(texts) - 1]
        raise GraderSetupError(f"grader choice: the answer is {problem.answer!r:.40}, not a letter from A to {last}")


def grade(problem: Problem, text: str) -> Grade:
    """Correct when the last commitment of the text is to the right choice and to no other; linear in its length."""
    choices = tuple(problem.metadata["choices"])
    span = final_span(text)
    answer = "" if span is None else text[slice(*span)].strip()
    after = text[0 if span is None else span[1] :][-_READ:]
    if span is not None and _TAKEN_BACK.match(text, span[1]):
        answer = ""
    letters = _stated(after, choices)
    if not letters and answer:
        if len(answer) > max(MAX_ANSWER, 2 * max(map(len, choices))):
            return TOO_LONG
        letters = _committed(answer, choices) or _stated(answer, choices)
        if not letters:
            return WRONG
        letters |= _beside(text, span, choices)  # type: ignore[arg-type]
    if not letters and span is None:
        letters = _listed(after, choices)
    if not letters:
        return NO_ANSWER
    if len(letters) > 1:
        return SEVERAL
    return CORRECT if letters == {problem.answer} else WRONG


def _stated(text: str, choices: Sequence[str]) -> set[str]:
    """The letters that the last sentence about the answer names, and those right beside it; none where none names any."""
    longest = 200 + 2 * max(map(len, choices))
    text = _unmarked(text)
    letters: set[str] = set()
    begun = 0
    for found in list(_SAID.finditer(text))[: -_SENTENCES - 1 : -1]:
        if _DENIED_BEFORE.search(text[max(found.start() - 60, 0) : found.start()]):
            continue
        said = found["letter"] or text[found.end() : found.end() + longest].partition("\n")[0]
        if letters:
            earlier = _PLAIN.match(said)
            end = found.end() + (earlier.end() if earlier and not found["letter"] else 0)
            if not earlier or begun - end > longest or not _BETWEEN.fullmatch(text[end:begun]):
                break
            letters |= _in_range(earlier[1], choices)
        elif letters := _committed(said, choices):
            end = found.end() + (0 if found["letter"] else len(said))
            after = text[found.end() : found.end() + longest].partition("\n")[0]
            also = (_AND_ALSO.match(text[end : end + longest]), _SO_IS.search(after))
            letters = letters.union(*(_in_range(each[1], choices) for each in also if each))
            if _RATHER.match(found[0]):
                break
        begun = found.start()
    return letters


def _beside(text: str, span: tuple[int, int], choices: Sequence[str]) -> set[str]:
    """The letters of final answers that nothing but "or", "and" and the like parts from this one."""
    also = _AND_ALSO.match(text[span[1] : span[1] + 200])
    letters = _in_range(also[1], choices) if also else set()
    start = span[0]
    for _ in choices:
        before = text[max(start - _READ, 0) : start]
        earlier = final_span(before)
        if (
            earlier is None
            or len(before) - earlier[1] > 200
            or not _BETWEEN.fullmatch(_AROUND.sub("", before[earlier[1] :]))
        ):
            break
        letters |= _committed(before[slice(*earlier)], choices)
        start += earlier[0] - len(before)
    return letters


def _listed(text: str, choices: Sequence[str]) -> set[str]:
    """The letters of all lines that are a choice and nothing else."""
    letters: set[str] = set()
    for line in filter(None, map(str.strip, _unmarked(text).splitlines())):
        lone = _LONE.fullmatch(_LABEL.sub("", re.sub(rf"^{_OR}+", "", _bare(line))))
        lettered = _LETTERED.match(_bare(line))
        if lone and _in_range(lone[1], choices):
            letters.add(lone[1].upper())
        elif texts := _by_text(line, choices):
            letters |= texts
        elif lettered and (texts := _by_text(_bare(line)[lettered.end() :], choices)):
            letters |= texts | _in_range(_letter(lettered), choices)
    return letters


def _committed(said: str, choices: Sequence[str]) -> set[str]:
    """The letters that an answer names: by a letter, by a choice's text, or by both."""
    bare = _LABEL.sub("", _bare(said))
    if (lone := _LONE.fullmatch(bare)) and (letters := _in_range(lone[1], choices)):
        return letters
    if letters := _by_text(said, choices):
        return letters
    lettered = _LETTERED.match(bare)
    if lettered is None or not (letters := _in_range(_letter(lettered), choices)):
        return _by_text(bare, choices) or _texts(said, choices) or _by_text(_clause(said), choices)
    rest = bare[lettered.end() :]
    if texts := _by_text(rest, choices) or _by_text(_clause(rest), choices):
        return letters | texts
    marked = lettered[1] or lettered[2] or lettered[4]
    if _DENIED.match(rest):
        return set()
    if not marked and _PROSE.match(rest):  # The article: "A positive number".
        return set()
    another = _ANOTHER.match(rest)
    if another and not (lettered[4] == "." and re.match(r" [a-z]", rest[another.end() :])):  # "B. A is too small."
        letters |= _in_range(_letter(another), choices)
    for also in _MARKED.finditer(_clause(rest)):
        letters |= _in_range(also[1], choices)
    return letters


def _bare(text: str) -> str:
    r"""The text without emphasis, `$`, braces and commands such as `\text`."""
    return _MARKUP.sub("", _unmarked(text)).strip()


def _unmarked(text: str) -> str:
    """The text without emphasis, and without quotation marks or single stars around a letter."""
    return _QUOTED.sub(r"\1", _EMPHASIS.sub("", text))


def _clause(text: str) -> str:
    """The text up to the end of its first clause."""
    end = _END_OF_CLAUSE.search(text)
    return text[: end.start()] if end else text


def _letter(found: re.Match[str]) -> str:
    """The letter of a match with groups for the ways to write it."""
    return next(group for group in found.groups() if group)


def _in_range(letter: str, choices: Sequence[str]) -> set[str]:
    """The letter, where a choice has it."""
    return {letter.upper()} & set(LETTERS[: len(choices)])


def _by_text(text: str, choices: Sequence[str]) -> set[str]:
    """The letters of the choices with this text, but for typography; else but for case; else of the same number."""
    spelled, number = _spelled(text), plain_number(_spelled(text))
    known = _known(tuple(choices))
    for same in (
        [each == spelled for each in known],
        [each.casefold() == spelled.casefold() for each in known],
        [number is not None and plain_number(each) == number for each in known],
    ):
        if any(same):
            return {letter for letter, is_same in zip(LETTERS, same, strict=False) if is_same}
    return set()


def _texts(said: str, choices: Sequence[str]) -> set[str]:
    """The letters of texts of several choices, or of one text with a letter behind it: "41 or 42", "42 (B)"."""
    clause = _clause(said).strip()
    if (last := _LETTER_AT_END.search(clause)) and (letters := _by_text(clause[: last.start()], choices)):
        return letters | _in_range(last[1], choices)
    letters = set()
    for part in filter(str.strip, _JOINED.split(said)[: 2 * len(LETTERS)]):
        if not (texts := _by_text(part, choices)):
            break
        letters |= texts
    return letters if len(letters) > 1 else set()


@lru_cache(maxsize=256)
def _known(choices: tuple[str, ...]) -> list[str]:
    """The texts of the choices, spelled plainly."""
    return [_spelled(text) for text in choices]


def _spelled(text: str) -> str:
    """One spelling for texts that differ in typography only."""
    return plain(_SCRIPT.sub(r"\1\2", _EMPHASIS.sub("", text).replace("$", "")))
