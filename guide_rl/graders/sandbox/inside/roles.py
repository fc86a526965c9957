"""What a child in a sandbox can be.

`answer` runs the program that nobody trusts and answers calls; `tests` runs the problem's tests, in another sandbox, and
gets plain data for every call; `program` runs a whole program on its standard input.
"""

import ast
import builtins
import contextlib
import json
import os
import struct
import sys
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from guide_rl.graders.sandbox.inside import plain_data

LONGEST_REPLY = 2**24
_HEADER = struct.Struct("!I")
ERRORS = {
    name: error
    for name, error in vars(builtins).items()
    if isinstance(error, type) and issubclass(error, Exception) and not issubclass(error, Warning)
}
"""The exceptions that have a name on both sides."""
_ENDS_ITERATION = ("StopIteration", "StopAsyncIteration")
"""Never raised by a call from the tests, where they would end what iterates: `all(map(...))` would be true."""


def answer(job_file: int, channel_file: int) -> None:
    """Run `setup` and `code`, then answer calls: {name | object, method, arguments} -> {value} or {raised}.

    Objects are what a call of a class gave; they stay here, and are known by their numbers.
    """
    job, channel = _job(job_file), Channel(channel_file)
    namespace = _namespace("answer")
    try:
        _execute(job["setup"], namespace)
        classes = _classes(namespace)
        exec(_compiled(job), namespace)
    except BaseException as error:
        channel.send({"raised": name_of(error)})
        return
    objects: list[Any] = []
    channel.send({})
    while (request := channel.receive()) is not None:
        reply: dict[str, Any]
        known = {name: namespace[name] for name in classes if isinstance(namespace.get(name), type)}
        try:
            function = eval(request["name"], namespace) if "name" in request else objects[request["object"]]
            function = getattr(function, request["method"]) if "method" in request else function
            arguments, named = plain_data.loads(request["arguments"], known)
            result = function(*arguments, **named)
            if request["keep"]:
                objects.append(result)
                reply = {"object": len(objects) - 1}
            else:
                reply = {"value": plain_data.dumps(result, known)}
        except BaseException as error:
            reply = {"raised": name_of(error)}
        channel.send(reply)


def tests(job_file: int, report_file: int, channel_file: int) -> None:
    """Run the problem's tests against the other sandbox, and report {passed, failed, raised}."""
    job = _job(job_file)
    report = Report(report_file, job["stop_at_first"])
    remote = Remote(Channel(channel_file), report)
    namespace = _namespace("tests")
    try:
        _execute(job["setup"], namespace)
        remote.classes = _classes(namespace)
        remote.begin()
        if "cases" in job:
            run_cases(job["cases"], remote.function(job["entry_point"]), report)
        else:
            run_asserts(job["tests"], job["entry_point"], namespace, remote, report)
    except BaseException as error:
        report.failed(error)
    report.end()


def program(job_file: int, report_file: int, input_file: int, output_file: int) -> None:
    """Run `setup` and `code` as a program; report {raised} when it raises."""
    job = _job(job_file)
    os.dup2(input_file, 0)
    os.dup2(output_file, 1)
    os.close(input_file)
    os.close(output_file)
    sys.stdin = open(0, encoding="utf-8", errors="replace")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
    try:
        exec(_compiled(job), _namespace("__main__"))
        sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:
        os.write(report_file, json.dumps({"raised": name_of(error)}).encode())
        raise


def rehearse() -> None:
    """Do once what is slow for the first time, so that children inherit it: reading Python, JSON text, plain data."""
    code = compile(counting("assert f([1, 'a']) == (2.0,)"), "rehearsal", "exec")
    with contextlib.suppress(NameError):
        exec(code, {})
    plain_data.loads(plain_data.dumps([[1, "a"], {"b": (2.0,)}], {}), {})


ROLES: dict[str, Callable[..., None]] = {"answer": answer, "tests": tests, "program": program}
"""The roles by name; each takes the job's files."""


class Channel:
    """Messages over a stream socket: JSON objects, each after its length."""

    def __init__(self, file: int) -> None:
        self._file = file

    def send(self, message: Mapping[str, Any]) -> None:
        """Send all of it."""
        data = json.dumps(message).encode()
        left = memoryview(_HEADER.pack(len(data)) + data)
        while left:
            left = left[os.write(self._file, left) :]

    def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end, ValueError where it is too long or no object."""
        header = self._read(_HEADER.size)
        if header is None:
            return None
        (length,) = _HEADER.unpack(header)
        if length > LONGEST_REPLY:
            raise ValueError("a reply that is too long")
        data = self._read(length)
        message = None if data is None else json.loads(data)
        if not isinstance(message, dict | None):
            raise ValueError("no object")
        return message

    def _read(self, length: int) -> bytes | None:
        """So many bytes, or None at the end."""
        data = bytearray()
        while len(data) < length:
            part = os.read(self._file, min(length - len(data), 2**20))
            if not part:
                return None
            data += part
        return bytes(data)


class Report:
    """What the tests found, sent once: how many passed, and whether anything failed.

    A test that ran several times (in a loop) counts as the share of times that it passed: an answer may decide how often.
    """

    def __init__(self, file: int, stop_at_first: bool) -> None:
        self._file, self._stop = file, stop_at_first
        self._times: dict[int, list[int]] = {}
        self.found: dict[str, Any] = {"passed": 0.0, "failed": 0, "raised": None}

    def passed(self, test: int) -> None:
        """That test passed, once more."""
        self._times.setdefault(test, [0, 0])[1] += 1

    def failed(self, error: BaseException | None = None, test: int | None = None) -> None:
        """That test failed, or something beside the tests; ends this process where that is enough."""
        self.found["failed"] += 1
        if test is not None:
            self._times.setdefault(test, [0, 0])[0] += 1
        if error is not None and not isinstance(error, AssertionError):
            self.found["raised"] = self.found["raised"] or name_of(error)
        if self._stop:
            self.end()

    def end(self) -> NoReturn:
        """Say what was found and end this process, whatever the tests would catch."""
        self.found["passed"] = sum(passed / (failed + passed) for failed, passed in self._times.values())
        os.write(self._file, json.dumps(self.found).encode())
        os._exit(0)


class Remote:
    """The answer's functions and objects as the tests see them."""

    def __init__(self, channel: Channel, report: Report) -> None:
        self._channel, self._report = channel, report
        self.classes: Mapping[str, type] = {}

    def begin(self) -> None:
        """Wait until the program has run; its failure fails all tests."""
        self._ask(None)

    def function(self, expression: str) -> Callable[..., Any]:
        """What the expression means there, to be called: gives plain data."""
        return RemoteFunction(lambda *a, **named: self._call({"name": expression, "keep": False}, a, named))

    def named(self, name: str) -> Callable[..., Any]:
        """What has that name there: a class, if it begins like one, gives objects whose methods give plain data."""
        if not name[0].isupper():
            return self.function(name)
        return RemoteFunction(lambda *arguments, **named: RemoteObject(self, self._keep(name, arguments, named)))

    def method(self, number: int, name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Call a method of an object that stays there."""
        return self._call({"object": number, "method": name, "keep": False}, arguments, named)

    def _keep(self, name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> int:
        number = self._request({"name": name, "keep": True}, arguments, named).get("object")
        return number if isinstance(number, int) else -1

    def _call(self, request: dict[str, Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        reply = self._request(request, arguments, named)
        try:
            return plain_data.loads(reply["value"], self.classes)
        except Exception:
            raise AssertionError("no plain value") from None

    def _request(self, request: dict[str, Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask({**request, "arguments": plain_data.dumps([[*arguments], {**named}], self.classes)})

    def _ask(self, request: dict[str, Any] | None) -> dict[str, Any]:
        """The reply; an exception there is raised here, and a process that is gone ends the tests."""
        try:
            if request is not None:
                self._channel.send(request)
            reply = self._channel.receive()
        except (OSError, ValueError):
            reply = None
        if reply is None:
            self._report.found["gone"] = True
            self._report.failed()
            self._report.end()
        if "raised" in reply:
            name = str(reply["raised"])
            error = RuntimeError if name in _ENDS_ITERATION else ERRORS.get(name, RuntimeError)
            self._report.found["raised"] = self._report.found["raised"] or (name if name in ERRORS else "Exception")
            if request is None:
                self._report.failed()
                self._report.end()
            raise error.__new__(error)
        return reply


class RemoteFunction(plain_data.Opaque):
    """What has a name there: can be called, and is no answer to anything else."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What the call gives there, as plain data or a RemoteObject."""
        return self._call(*arguments, **named)


class RemoteObject(plain_data.Opaque):
    """An object of a class of the answer's; only its methods can be called."""

    def __init__(self, remote: Remote, number: int) -> None:
        self._remote, self._number = remote, number

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return RemoteFunction(lambda *arguments, **named: self._remote.method(self._number, name, arguments, named))


def run_cases(cases: Sequence[Mapping[str, Any]], function: Callable[..., Any], report: Report) -> None:
    """Call the function with the arguments of each case and compare what it gives; tuples count as lists."""
    for test, case in enumerate(cases):
        try:
            right = bool(_lists(function(*case["arguments"])) == case["expected"])
        except Exception as error:
            report.failed(error, test)
            continue
        report.passed(test) if right else report.failed(test=test)


def run_asserts(source: str, entry_point: str, namespace: dict[str, Any], remote: Remote, report: Report) -> None:
    """Run tests in Python; every `assert` that nothing would catch counts as one test."""
    tree = ast.parse(source)
    own = bound_names(tree)
    gets_entry_point = bool(entry_point) and "check" in own
    theirs = set() if gets_entry_point else foreign_names(tree) - namespace.keys()
    if entry_point:
        theirs |= {node.id for node in ast.walk(ast.parse(entry_point)) if isinstance(node, ast.Name)} - own
    namespace |= {name: remote.named(name) for name in theirs}
    namespace |= {_REPORT: report, _ERRORS: Exception}
    exec(compile(counting(source), "tests", "exec"), namespace)
    if gets_entry_point:
        namespace["check"](remote.function(entry_point))


def bound_names(tree: ast.AST) -> set[str]:
    """The names that a program gives to anything, anywhere in it."""
    nodes = list(ast.walk(tree))
    names = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    names |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    imported = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    return names | {alias.asname or alias.name.partition(".")[0] for alias in imported}


def foreign_names(tree: ast.AST) -> set[str]:
    """The names that a program uses without giving them to anything, and that Python does not know."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {name for name in used - bound_names(tree) if not hasattr(builtins, name)}


def counting(source: str) -> ast.Module:
    """The tests, in which every `assert` counts instead of raising, but where a `try` might catch what it raises."""
    tree: ast.Module = ast.fix_missing_locations(_Counting().visit(ast.parse(source)))
    return tree


_REPORT, _ERRORS = "__report__", "__errors__"


class _Counting(ast.NodeTransformer):
    """Makes every `assert` count instead of raise, but where a `try` might catch what it raises."""

    test = 0

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        """`assert x` -> try: passed if x else failed, except what x raises: failed with it."""
        self.test += 1
        passed, failed = f"{_REPORT}.passed({self.test})", f"{_REPORT}.failed(test={self.test})"
        (counted,) = ast.parse(
            f"try:\n {passed} if x else {failed}\n"
            f"except {_ERRORS} as __error__:\n {_REPORT}.failed(__error__, {self.test})"
        ).body
        assert isinstance(counted, ast.Try)
        choice = counted.body[0]
        assert isinstance(choice, ast.Expr)
        assert isinstance(choice.value, ast.IfExp)
        choice.value.test = node.test
        return ast.copy_location(counted, node)

    def visit_Try(self, node: ast.Try) -> ast.stmt:
        """What stands in a `try` stays as it is."""
        return node


def name_of(error: BaseException) -> str:
    """The name of an exception, of its nearest built-in class."""
    if isinstance(error, OSError) and error.errno in (1, 13, 30):
        return "PermissionError"
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERRORS), type(error).__name__)


def _lists(value: Any) -> Any:
    """The value with lists for tuples."""
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    return {key: _lists(item) for key, item in value.items()} if isinstance(value, dict) else value


def _job(file: int) -> dict[str, Any]:
    """The job in a file, which is then closed."""
    with open(file, "rb") as opened:
        opened.seek(0)
        job: dict[str, Any] = json.load(opened)
    return job


def _namespace(name: str) -> dict[str, Any]:
    """The names of a new module."""
    module = sys.modules[name] = types.ModuleType(name)
    return vars(module)


def without_unfinished(setup: str) -> str:
    """The setup without the function that it ends in the middle of, if so; SyntaxError where it is no Python else."""
    try:
        ast.parse(setup)
    except IndentationError as error:
        *_, last = setup.rstrip().split("\n")
        indent = len(last) - len(last.lstrip())
        try:
            unfinished = ast.parse(f"{setup.rstrip()}\n{' ' * indent} pass").body[-1]
        except SyntaxError:
            raise error from None
        begin = min(node.lineno for node in (unfinished, *getattr(unfinished, "decorator_list", ())))
        return "\n".join(setup.split("\n")[: begin - 1])
    return setup


def _execute(setup: str, namespace: dict[str, Any]) -> None:
    """Run the setup as far as it is whole."""
    exec(compile(without_unfinished(setup), "setup", "exec"), namespace)


def _compiled(job: Mapping[str, Any]) -> types.CodeType:
    """The setup and the code, to the left where it begins farther right than where the setup ends."""
    try:
        return compile(f"{job['setup']}\n{job['code']}", "answer", "exec")
    except IndentationError:
        return compile(f"{job['setup']}\n{textwrap.dedent(job['code'])}", "answer", "exec")


def _classes(namespace: Mapping[str, Any]) -> dict[str, type]:
    """The classes that the setup defines."""
    here = namespace["__name__"]
    return {name: value for name, value in namespace.items() if isinstance(value, type) and value.__module__ == here}
