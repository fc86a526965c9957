"""The user's own grader, named `package.module:function`: import it, and read what it returns as a Grade.

The function takes (problem, text) and returns a Grade, True or False, a number, or (reward, correct). A number is the
reward, and 1 or more is correct. Whatever else it returns grades as wrong with verdict `error: not a grade`.
"""

import importlib
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable
from numbers import Real
from typing import Any

from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Grade, Problem

NOT_A_GRADE = Grade(0.0, False, "error: not a grade")
_LONGEST_VERDICT = 60


def load(name: str) -> Callable[[Problem, str], Any]:
    """Import `package.module:function`, from the current folder too.

    Raises:
        GraderSetupError: the module or the function is not there, or does not take (problem, text); says what to do.
    """
    module_name, _, function_name = name.partition(":")
    if (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)  # Command-line programs, unlike scripts, do not search the current folder.
    function = getattr(_module(module_name, name), function_name, None)
    if not callable(function):
        raise GraderSetupError(
            f"grader {name!r}: module {module_name!r} has no function {function_name!r}; correct the name"
        )
    try:
        inspect.signature(function).bind(None, "")
    except TypeError as error:
        raise GraderSetupError(f"grader {name!r} must take (problem, text): {error}") from None
    except ValueError:  # No signature to look at, as in some compiled functions.
        pass
    return function


def as_grade(value: Any) -> Grade:
    """What a grader returned, as a Grade with a finite reward."""
    verdict = ""
    match _unboxed(value):
        case Grade():
            reward, correct, verdict = value.reward, value.correct, value.verdict
        case (reward, correct):
            pass
        case reward:
            correct = reward if isinstance(reward, bool) else None
    reward, correct = _unboxed(reward), _unboxed(correct)
    if not isinstance(reward, Real) or not isinstance(correct, bool | None) or not math.isfinite(reward):
        return NOT_A_GRADE
    correct = float(reward) >= 1 if correct is None else correct
    return Grade(float(reward), correct, str(verdict)[:_LONGEST_VERDICT] or ("correct" if correct else "wrong"))


def _unboxed(value: Any) -> Any:
    """A NumPy or PyTorch number as a plain one."""
    return value.item() if getattr(value, "shape", None) == () else value


def _module(module_name: str, name: str) -> Any:
    """Import a module; GraderSetupError tells a module that is not there from one that fails while it is imported."""
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise GraderSetupError(
                f"grader {name!r}: there is no module {error.name!r}; install it, or start in the folder that holds it"
            ) from None
        raise GraderSetupError(f"grader {name!r}: module {module_name!r} needs {error.name!r}; install it") from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise GraderSetupError(
            f"grader {name!r}: importing module {module_name!r} failed in {where.filename}, line {where.lineno}: "
            f"{type(error).__name__}: {error}"
        ) from error
