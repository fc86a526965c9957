"""What a problem of the grader `unit_tests` carries, and what is refused of it before anything runs.

The problem's metadata holds `tests`, one of

- Python source, or a list of such texts, with `assert`s that call the answer's functions by name, or define
  `check(candidate)`, which is called with `entry_point` (`add`, `Solution().add`);
- a list of {input, output, testtype}: for `stdin` what the program reads and must print, for `functional` arguments, a
  JSON value a line, and the JSON value that `Solution().NAME` must give, where `call` is {func_name: NAME};

and may hold `setup` (source that runs before the code and before the tests), `public_tests` (more of such a list), and
`reward`: `all` (default: 1 when every test passes, else 0) or `fraction` (the share of tests that pass). Correct means
that every test passed.
"""

import ast
import builtins
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from guide_rl.graders.sandbox.inside.roles import bound_names, foreign_names, without_unfinished
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Problem

REWARDS = ("all", "fraction")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def check(problem: Problem) -> None:
    """Raise GraderSetupError unless the metadata holds tests that can decide something."""
    metadata = problem.metadata
    tests = metadata.get("tests")
    if metadata.get("reward", "all") not in REWARDS:
        raise GraderSetupError(f"metadata.reward {metadata['reward']!r} is none of {', '.join(REWARDS)}")
    for name in ("setup", "entry_point"):
        if not isinstance(metadata.get(name, ""), str):
            raise GraderSetupError(f"metadata.{name} is no text")
    setup, entry_point = metadata.get("setup", ""), entry_point_of(metadata)
    _check_texts(setup, entry_point)
    if source_of(tests):
        if metadata.get("public_tests"):
            raise GraderSetupError(
                "metadata.public_tests would be ignored beside Python in metadata.tests; remove them"
            )
        _check_source((tests,) if isinstance(tests, str) else tuple(tests or ()), setup, entry_point)
        return
    if not cases_of(metadata):
        raise GraderSetupError(
            "grader unit_tests needs metadata.tests: Python source with asserts, or a list of {input, output}"
        )
    for name in ("public_tests", "tests"):
        for number, case in enumerate(_listed(metadata.get(name))):
            _check_case(case, f"metadata.{name}[{number}]", entry_point)


def entry_point_of(metadata: Mapping[str, Any]) -> str:
    """What tests call."""
    call = metadata.get("call")
    name = call.get("func_name", "") if isinstance(call, Mapping) else ""
    return str(metadata.get("entry_point") or (f"Solution().{name}" if name else ""))


def source_of(tests: object) -> str:
    """Tests in Python, or nothing where they are cases."""
    if isinstance(tests, str):
        return tests
    texts = isinstance(tests, Sequence) and all(isinstance(test, str) for test in tests)
    return "\n".join(tests) if texts else ""  # type: ignore[arg-type]


def cases_of(metadata: Mapping[str, Any]) -> list[Any]:
    """Tests that are cases, the public ones first."""
    return [*_listed(metadata.get("public_tests")), *_listed(metadata.get("tests"))]


def arguments_of(case: Mapping[str, Any]) -> dict[str, Any]:
    """A functional test as arguments and what the call must give; ValueError where these are no JSON."""
    arguments = [json.loads(line) for line in case["input"].split("\n") if line.strip()]
    return {"arguments": arguments, "expected": json.loads(case["output"])}


@lru_cache(maxsize=4096)
def asserts(source: str) -> int:
    """How many asserts of tests in Python nothing can catch."""
    waiting: list[ast.AST] = [ast.parse(source)]
    count = 0
    while waiting:
        node = waiting.pop()
        count += isinstance(node, ast.Assert)
        waiting += [] if isinstance(node, ast.Try) else ast.iter_child_nodes(node)
    return count


def _listed(cases: object) -> Sequence[Any]:
    """Cases, or none where there is no list."""
    return cases if isinstance(cases, Sequence) and not isinstance(cases, str) else ()


def _check_case(case: object, name: str, entry_point: str) -> None:
    """Raise GraderSetupError unless this can decide something."""
    if not isinstance(case, Mapping) or not all(isinstance(case.get(key), str) for key in ("input", "output")):
        raise GraderSetupError(f"{name} has no texts input and output")
    if case.get("testtype", "stdin") not in ("stdin", "functional"):
        raise GraderSetupError(f"{name}: testtype {case['testtype']!r} of a test is neither stdin nor functional")
    if case.get("testtype") != "functional":
        return
    if not entry_point:
        raise GraderSetupError(f"{name}: functional tests need metadata.call with func_name, or metadata.entry_point")
    try:
        arguments_of(case)
    except (ValueError, RecursionError) as error:
        raise GraderSetupError(
            f"{name}: a functional test has JSON in input, a value a line, and in output: {error}"
        ) from error


@lru_cache(maxsize=4096)
def _check_texts(setup: str, entry_point: str) -> None:
    """Raise GraderSetupError where they are no Python."""
    _setup_tree(setup)
    _parsed([entry_point or "_"], "metadata.entry_point", mode="eval")


@lru_cache(maxsize=4096)
def _check_source(tests: tuple[str, ...], setup: str, entry_point: str) -> None:
    """Raise GraderSetupError unless tests in Python ask something of an answer, in a way that a right one can answer."""
    tree, prepared = _parsed(tests, "metadata.tests"), _setup_tree(setup)
    if not asserts("\n".join(tests)):
        raise GraderSetupError("metadata.tests have no assert outside of try, so they decide nothing")
    own = bound_names(tree)
    theirs = foreign_names(tree) - bound_names(prepared)
    if not entry_point and not theirs:
        raise GraderSetupError(
            "metadata.tests use no name that only the answer can define, so they would pass any answer; say in "
            "metadata.entry_point what they test"
        )
    checks = [node for node in tree.body if isinstance(node, _Function) and node.name == "check"]
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    if checks and not entry_point and "check" not in called:
        raise GraderSetupError(
            "metadata.tests define check, which nothing calls; say in metadata.entry_point what it tests"
        )
    if checks and entry_point:
        theirs = {argument.arg for node in checks for argument in node.args.args[:1]}
    if entry_point:
        theirs |= foreign_names(ast.parse(entry_point)) - own
    if stubs := (_stubs(prepared) & called) - own - theirs:
        raise GraderSetupError(
            f"metadata.tests call {min(stubs)}, of which metadata.setup has only the beginning, and would test that: "
            "leave it out of setup"
        )
    functions = _functions(tree, prepared)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in theirs:
            given = (*node.args, *(keyword.value for keyword in node.keywords))
            if any(isinstance(each, ast.Lambda) or getattr(each, "id", None) in functions for each in given):
                raise GraderSetupError(
                    f"metadata.tests: {ast.unparse(node):.80} gives the answer a function or a class, but only plain data "
                    "reaches it (docs/sandbox.md); leave the problem out"
                )


def _setup_tree(setup: str) -> ast.Module:
    """What the setup defines before an answer goes on."""
    try:
        return ast.parse(without_unfinished(setup))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _parsed([setup], "metadata.setup")


def _parsed(texts: Sequence[str], name: str, mode: str = "exec") -> Any:
    """The tree of texts that follow each other; GraderSetupError says which is no Python, and its line."""
    try:
        return ast.parse("\n".join(texts), mode=mode)
    except SyntaxError as error:
        message, line = error.msg, error.lineno or 1
    except (ValueError, RecursionError, MemoryError) as error:
        message, line = str(error) or type(error).__name__, 1
    number = 0
    while number + 1 < len(texts) and line > (lines := texts[number].count("\n") + 1):
        number, line = number + 1, line - lines
    where = f"{name}[{number}]" if len(texts) > 1 else name
    raise GraderSetupError(f"{where} is no Python: line {line}: {message}") from None


def _stubs(tree: ast.Module) -> set[str]:
    """The functions that are only begun (`pass`, `...`, NotImplementedError), and the classes that have only such."""
    names = set()
    for node in tree.body:
        functions = [each for each in getattr(node, "body", ()) if isinstance(each, _Function)]
        whole = [node] if isinstance(node, _Function) else functions if isinstance(node, ast.ClassDef) else []
        if whole and all(map(_is_begun, whole)):
            names.add(node.name)  # type: ignore[attr-defined]
    return names


def _is_begun(function: _Function) -> bool:
    """Whether nothing but a text, `pass`, `...` or a NotImplementedError stands in it."""
    return not function.decorator_list and all(
        isinstance(part, ast.Pass)
        or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        or (isinstance(part, ast.Raise) and "NotImplementedError" in ast.unparse(part))
        for part in function.body
    )


def _functions(*trees: ast.Module) -> set[str]:
    """The names that mean a function or a class and nothing else: of Python, or defined here."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    defined = {node.name for node in nodes if isinstance(node, _Function | ast.ClassDef)}
    known = {name for name, value in vars(builtins).items() if callable(value)}
    values = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    return (defined | known) - values - {node.arg for node in nodes if isinstance(node, ast.arg)}
