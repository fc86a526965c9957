"""Sources and the column map: each shipped recipe reads rows of its data set's own schema; bad rows are told, not dropped."""

import base64
import csv
import gzip
import json
import pickle
import re
import zlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from guide_rl import graders
from guide_rl.cli import main
from guide_rl.config import GeneratorConfig, ProblemsRecipe, SourceConfig
from guide_rl.problems import load_problems, rules
from guide_rl.problems.columns import RowRejected, shuffled_choices, to_problem
from guide_rl.problems.points import POINTS, guidance_at
from guide_rl.problems.preparation import prepare
from guide_rl.problems.rules import RULES
from guide_rl.problems.sources import files, kind_of, read_rows
from guide_rl.recipes import read_recipe

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes/problems"
ROWS = Path(__file__).parent / "data/sources"
OFFLINE = {"champ", "procedural"}
"""Recipes whose rows come with a package."""
ELSEWHERE = {"mixed"}
"""Recipes of several sources, with tests of their own."""


def prepared(name: str, tmp_path: Path, *overrides: str) -> dict[str, dict]:
    """The problems of a shipped recipe over the small file in its data set's schema, by id, and its summary."""
    recipe = read_recipe(ProblemsRecipe, RECIPES / f"{name}.yaml")
    (source,) = recipe.sources
    settings = [f"sources.{source}.path={ROWS / name}.jsonl", "against=[]", "splits={}", "unreadable_answers=unchecked"]
    recipe = read_recipe(ProblemsRecipe, RECIPES / f"{name}.yaml", [*settings, f"out={tmp_path / 'out'}", *overrides])
    summary = prepare(recipe)
    return {problem.id: problem for problem in load_problems(tmp_path / "out/problems.jsonl")} | {"summary": summary}


EXPECTED = {
    "openr1_math": ("openr1/00000000-0000-0000-0000-000000000001", "2", "Algebra"),
    "gsm8k": ("gsm8k/2", "1240", "gsm8k"),
    "gsm8k_test": ("gsm8k_test/1", "54", "gsm8k_test"),
    "math": ("math/2", "1", "Number Theory"),
    "math500": ("math500/test/precalculus/9999.json", r"\left( 5, \frac{\pi}{2} \right)", "Precalculus"),
    "aime24": ("aime24/60", "25", "aime24"),
    "aime25": ("aime25/0", "17", "aime25"),
    "amc": ("amc/0", "142", "amc"),
    "amc23": ("amc23/0", "27", "amc23"),
    "minerva": ("minerva/2", "4.5e33", "minerva"),
    "olympiadbench": ("olympiadbench/1606", "2,3", "Algebra"),
    "gpqa_diamond": ("gpqa_diamond/recINVENTED", None, "Physics (general)"),
    "humaneval": ("humaneval/HumanEval/999", "    return 2 * number\n", "humaneval"),
    "leetcode_contest": ("leetcode_contest/0000-invented", "decided by unit tests", "leetcode_contest"),
    "leetcode": ("leetcode/invented-double", None, "Easy"),
    "livecodebench": ("livecodebench/abc000_a", "decided by unit tests", "easy"),
    "amps": ("amps/1", "(x+1)^2-1", "algebra"),
}


def test_every_shipped_recipe_is_tested_on_rows_of_its_own():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*EXPECTED, *OFFLINE, *ELSEWHERE}
    assert {path.stem for path in ROWS.glob("*.jsonl")} == {*EXPECTED}


def packed(pickled: bytes) -> str:
    """As LiveCodeBench packs its tests."""
    return base64.b64encode(zlib.compress(pickled)).decode()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_shipped_recipe_reads_the_schema_of_its_data_set(name, tmp_path):
    problems = prepared(name, tmp_path)
    identity, answer, stratum = EXPECTED[name]
    problem = problems[identity]
    assert answer is None or problem.answer == answer
    assert problem.stratum == stratum
    counts = next(iter(problems["summary"]["sources"].values()))
    assert counts["rejected"] == ({"no answer": 1} if name == "openr1_math" else {})


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_a_recipe_is_compared_against_is_there(path):
    for other in read_recipe(ProblemsRecipe, path).against:
        assert read_recipe(ProblemsRecipe, ROOT / other).sources


def test_solutions_end_with_a_box_that_graders_read(tmp_path):
    for name, boxed in (("gsm8k", r"\boxed{1240}"), ("amps", r"\boxed{(x+1)^2-1}")):
        problems = prepared(name, tmp_path / name)
        problem = problems[EXPECTED[name][0]]
        assert boxed in problem.solution
        assert "<<" not in problem.solution
        assert graders.quick_grade(problem, problem.solution).correct


def test_minervas_numbers_are_right_in_any_spelling_and_as_exact_as_elsewhere(tmp_path):
    problem = prepared("minerva", tmp_path)["minerva/2"]
    verdicts = {
        text: graders.quick_grade(problem, rf"\boxed{{{text}}}").correct
        for text in ("4.5e33", r"4.5 \times 10^{33}", r"4.5\cdot10^{33}\text{ erg/s}", r"4.49 \times 10^{33}", "4.5e32")
    }
    assert list(verdicts.values()) == [True, True, True, False, False]
    formula = replace(problem, answer=r"\frac{1}{(s+1)^2}")
    assert graders.resolve("quantity")(formula, r"\boxed{\frac{1}{s^2+2s+1}}").correct


def test_multiple_choice_is_shuffled_by_the_seed_and_the_letter_is_the_right_choice(tmp_path):
    letters = set()
    for seed in range(12):
        problems = prepared("gpqa_diamond", tmp_path / str(seed), f"seed={seed}")
        problem = problems["gpqa_diamond/recINVENTED"]
        assert f"{problem.answer}) 10^-4 eV" in problem.question
        graders.check(problem)
        assert graders.quick_grade(problem, r"\boxed{10^{-4} \text{ eV}}").correct
        assert [line[:2] for line in problem.question.splitlines()[2:6]] == ["A)", "B)", "C)", "D)"]
        letters.add(problem.answer)
    assert len(letters) > 1
    with pytest.raises(RowRejected, match="the same"):
        shuffled_choices(["a", "b", "a "], 0)


def test_there_are_no_more_choices_than_letters():
    with pytest.raises(ValueError, match="2 to 26 columns"):
        SourceConfig("x.jsonl", choices=[f"c{i}" for i in range(27)])


def test_a_constant_may_be_metadata():
    columns, constants = {"question": "q", "answer": "a"}, {"metadata.unit": "m", "stratum": "lengths"}
    source = SourceConfig("rows.jsonl", columns=columns, constants=constants)
    problem = to_problem({"q": "1+1?", "a": "2"}, 1, "s", source, 0)
    assert problem.metadata == {"unit": "m"}
    assert problem.stratum == "lengths"


def test_the_place_of_the_right_choice_follows_from_the_seed_and_differs_between_questions():
    def letters(seed):
        return "".join(shuffled_choices([f"{n} right", f"{n} b", f"{n} c"], seed)[1] for n in range(30))

    assert letters(3) == letters(3) != letters(4)
    assert set(letters(3)) == {*"ABC"}


def test_code_problems_hold_the_tests_that_their_grader_needs(tmp_path):
    problems = prepared("livecodebench", tmp_path / "l")
    stdin, functional = problems["livecodebench/abc000_a"], problems["livecodebench/9999"]
    assert [case["output"] for case in stdin.metadata["tests"]] == ["6\n", "6\n"]
    assert functional.metadata["call"] == {"func_name": "double"}
    problem = prepared("humaneval", tmp_path / "h")["humaneval/HumanEval/999"]
    program = problem.metadata["setup"] + problem.answer + problem.metadata["tests"]
    exec(f"{program}\ncheck({problem.metadata['entry_point']})", {})
    problem = prepared("leetcode", tmp_path / "c")["leetcode/invented-double"]
    program = "\n".join((problem.metadata["setup"], problem.answer, problem.metadata["tests"]))
    exec(f"{program}\ncheck({problem.metadata['entry_point']})", {})
    for name in ("livecodebench", "humaneval", "leetcode", "leetcode_contest"):
        for problem in [*prepared(name, tmp_path / name).values()][:-1]:
            graders.check(problem)


class _Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_nothing_in_a_pickle_is_run(capsys):
    packed = base64.b64encode(zlib.compress(pickle.dumps(_Evil()))).decode()
    with pytest.raises(ValueError, match="asks for builtins"):
        RULES["test_cases"](packed)
    assert capsys.readouterr().out == ""


def test_test_cases_that_were_cut_off_or_fill_the_memory_are_refused(monkeypatch):
    whole = base64.b64encode(zlib.compress(pickle.dumps("[1, 2]"))).decode()
    assert RULES["test_cases"](whole) == [1, 2]
    for kept in (-2, 5):
        cut = base64.b64encode(zlib.compress(pickle.dumps("[1, 2]"))[:kept]).decode()
        with pytest.raises(ValueError, match="or cut off"):
            RULES["test_cases"](cut)
    monkeypatch.setattr(rules, "_LARGEST_TESTS", 20)
    with pytest.raises(ValueError, match="more than 20 bytes"):
        RULES["test_cases"](base64.b64encode(zlib.compress(pickle.dumps("[1]" + " " * 99))).decode())


def test_champ_has_all_problems_and_their_hints_as_levels(tmp_path):
    pytest.importorskip("champ_dataset")
    recipe = read_recipe(
        ProblemsRecipe, RECIPES / "champ.yaml", [f"out={tmp_path / 'o'}", "unreadable_answers=unchecked"]
    )
    summary = prepare(recipe)
    problems = load_problems(tmp_path / "o/problems.jsonl")
    assert len(problems) == 270
    assert summary["with_guidance"] == 245
    assert sum(len(problem.metadata.get(POINTS, ())) for problem in problems) == 456
    for problem in problems:
        assert (problem.guidance is None) == (POINTS not in problem.metadata)
        assert guidance_at(problem, None) == problem
    (first,) = (problem for problem in problems if problem.id == "champ/P_Combinatorics_1")
    assert guidance_at(first, 1).guidance.startswith("1. Let x_n, y_n, z_n be")
    assert guidance_at(first, 2).guidance.splitlines()[1:] == ["2. What are x_1, y_1, z_1?"]
    assert first.solution.count("\n") == 5


def test_procedural_problems_are_graded_by_their_own_verifiers_and_do_not_depend_on_size(tmp_path):
    recipe = RECIPES / "procedural.yaml"
    small = ["sources.procedural.generators=[{name: chain_sum, size: 3}, {name: gsm_symbolic, size: 2, seed: 7}]"]
    prepare(read_recipe(ProblemsRecipe, recipe, [*small, f"out={tmp_path / 'o'}", "splits={}"]))
    problems = load_problems(tmp_path / "o/problems.jsonl")
    assert [problem.stratum for problem in problems] == ["chain_sum"] * 3 + ["gsm_symbolic"] * 2
    for problem in problems:
        graders.check(problem)
        assert graders.thorough_grader(problem.grader)(problem, f"<answer>{problem.answer}</answer>").correct
    assert problems[3].solution
    more = SourceConfig(kind="reasoning_gym", generators=[GeneratorConfig("chain_sum", size=5)])
    assert [row["question"] for _, row in read_rows(more, None, 0)][:3] == [
        problem.question for problem in problems[:3]
    ]


def test_a_procedural_problem_with_fractions_in_its_metadata_is_graded():
    pytest.importorskip("reasoning_gym")
    source = SourceConfig(kind="reasoning_gym", generators=[GeneratorConfig("gsm_symbolic", size=8)])
    row = list(read_rows(source, None, 0))[7][1]
    assert row["metadata"]["entry"]["metadata"]["variables"]["serving_fraction"] == "2"
    problem = to_problem(row, 8, "s", source, 0)
    assert graders.thorough_grader(problem.grader)(problem, f"<answer> {problem.answer} </answer>").correct
    assert not graders.thorough_grader(problem.grader)(problem, "<answer>7</answer>").correct


def test_an_unknown_generator_names_itself():
    source = SourceConfig(kind="reasoning_gym", generators=[GeneratorConfig("chain_smu")])
    with pytest.raises(ValueError, match="chain_smu"):
        list(read_rows(source, None, 0))


ROW = {"q": "What?", "a": "1", "extra": "x"}


def test_jsonl_parquet_csv_and_a_local_folder_give_the_same_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [ROW, {**ROW, "q": "Zwölf, „ja“?\nWhat"}]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "r.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROW)
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "r.parquet", tmp_path / "folder/train.parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    read = {}
    for path in ("r.jsonl", "r.csv", "r.parquet", "folder"):
        source = SourceConfig(str(tmp_path / path), streaming=True)
        found = [(number, {name: row[name] for name in "qa"}) for number, row in read_rows(source, ["q", "a"], 0)]
        read[kind_of(source)] = found
    assert set(read) == {"jsonl", "csv", "parquet", "hub"}
    assert all(found == read["jsonl"] for found in read.values())
    assert [number for number, _ in read["jsonl"]] == [1, 2]


def test_json_tsv_and_packed_files_are_read_and_other_endings_say_which_are(tmp_path):
    lines = json.dumps(ROW) + "\n"
    table = "\t".join(ROW) + "\n" + "\t".join(ROW.values()) + "\n"
    texts = {
        "r.json": json.dumps([ROW]),
        "r.tsv": table,
        "r.ndjson": lines,
        "r.jsonl.gz": lines,
        "r.csv.gz": table.replace("\t", ","),
    }
    for name, text in texts.items():
        packed = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
        (tmp_path / name).write_bytes(packed)
        assert list(read_rows(SourceConfig(str(tmp_path / name)), None, 0)) == [(1, ROW)], name
    (tmp_path / "r.txt").write_text(lines)
    assert list(read_rows(SourceConfig(str(tmp_path / "r.txt"), kind="jsonl"), None, 0)) == [(1, ROW)]
    with pytest.raises(ValueError, match=r"r\.txt: files that end in \.jsonl, .* `kind`"):
        list(read_rows(SourceConfig(str(tmp_path / "r.txt")), None, 0))
    (tmp_path / "bad.json").write_text(lines + lines)
    with pytest.raises(ValueError, match=r"bad\.json: not JSON .*kind: jsonl"):
        list(read_rows(SourceConfig(str(tmp_path / "bad.json")), None, 0))
    (tmp_path / "one.json").write_text('{"data": []}')
    with pytest.raises(ValueError, match="holds a dict; write a list"):
        list(read_rows(SourceConfig(str(tmp_path / "one.json")), None, 0))
    for packed in (b"text", gzip.compress(lines.encode())[:-9]):
        (tmp_path / "bad.jsonl.gz").write_bytes(packed)
        with pytest.raises(OSError, match=r"bad\.jsonl\.gz: cannot be unpacked"):
            list(read_rows(SourceConfig(str(tmp_path / "bad.jsonl.gz")), None, 0))


def test_a_folder_of_unlike_files_is_refused_and_the_current_one_is_read(tmp_path, monkeypatch):
    (tmp_path / "made").mkdir()
    (tmp_path / "made/problems.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    monkeypatch.chdir(tmp_path / "made")
    assert [row for _, row in read_rows(SourceConfig("."), None, 0)] == [{"question": "q", "answer": "a"}]
    (tmp_path / "made/rejected.jsonl").write_text('{"row": 1}\n')
    with pytest.raises(OSError, match=r"files of one kind .* or name one of its files"):
        list(read_rows(SourceConfig("../made"), None, 0))


def test_folders_of_save_to_disk_are_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([ROW])
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=rows, test=datasets.Dataset.from_list([{**ROW, "q": "Two?"}])).save_to_disk(
        tmp_path / "two"
    )
    assert list(read_rows(SourceConfig(str(tmp_path / "one")), None, 0)) == [(1, ROW)]
    ((_, row),) = read_rows(SourceConfig(str(tmp_path / "two"), split="test"), ["q"], 0)
    assert row == {"q": "Two?"}
    with pytest.raises(ValueError, match="no split 'dev'; there are train, test"):
        list(read_rows(SourceConfig(str(tmp_path / "two"), split="dev"), None, 0))


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (5.0, "5"),
        (-0.5, "-0.5"),
        (7, "7"),
        ("5.0", "5.0"),
        (float("nan"), None),
        ("nan", None),
        (" NaN ", None),
        ("[1, 2]", "[1, 2]"),
    ],
)
def test_numbers_of_tables_are_taken_as_written_and_nan_is_no_answer(value, taken):
    source = SourceConfig("x.csv", columns={"question": "q", "answer": "a"})
    if taken is None:
        with pytest.raises(RowRejected, match="no answer: column 'a' is empty or nan"):
            to_problem({"q": "x", "a": value}, 1, "s", source, 0)
    else:
        assert to_problem({"q": "x", "a": value}, 1, "s", source, 0).answer == taken


def test_an_integer_column_with_a_null_gives_whole_numbers(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"question": ["a", "b"], "answer": pyarrow.array([5.0, float("nan")])})
    parquet.write_table(table, tmp_path / "r.parquet")
    (tmp_path / "r.yaml").write_text(f"sources: {{s: {{path: {tmp_path}/r.parquet}}}}\nout: {tmp_path}/o\n")
    summary = prepare(read_recipe(ProblemsRecipe, tmp_path / "r.yaml"))
    assert [problem.answer for problem in load_problems(tmp_path / "o/problems.jsonl")] == ["5"]
    assert summary["sources"]["s"]["rejected"] == {"no answer": 1}


def test_where_takes_the_numbers_and_truth_values_of_a_csv():
    def kept(where, **row):
        source = SourceConfig("x.csv", columns={"question": "q", "answer": "q"}, where=where)
        try:
            to_problem({"q": "x", **row}, 1, "s", source, 0)
        except RowRejected as why:
            return why.reason != "filtered"
        return True

    assert kept({"idx": [18, 19]}, idx="18")
    assert kept({"idx": "18"}, idx=18.0)
    assert not kept({"idx": [18, 19]}, idx="180")
    assert kept({"easy": True}, easy="TRUE")
    assert not kept({"kind": "Odd"}, kind="odd")


def test_columns_that_are_not_needed_are_not_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "d").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / "d/train.parquet")
    for path in (tmp_path / "d", tmp_path / "d/train.parquet"):
        ((_, row),) = read_rows(SourceConfig(str(path), streaming=True), ["q", "nothing"], 0)
        assert row == {"q": "What?"}


@pytest.mark.skipif(find_spec("datasets") is None, reason="needs datasets")
def test_a_data_set_that_is_nowhere_says_what_to_check(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match=r"nobody/nothing: no such file or folder here, and from the hub .*Check name"):
        list(read_rows(SourceConfig("nobody/nothing"), None, 0))


@pytest.mark.parametrize("damage", [b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", None])
def test_a_damaged_parquet_file_is_named(tmp_path, damage):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "r.parquet"
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist([ROW] * 9), path, compression="gzip")
    path.write_bytes(damage or path.read_bytes()[:4] + b"\xff" * 60 + path.read_bytes()[64:])
    with pytest.raises(ValueError, match=r"r\.parquet: cannot be read as Parquet .*get it again"):
        list(read_rows(SourceConfig(str(path)), None, 0))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("r.jsonl.gz", '{"q": "' + "x" * 2000 + '"}', "a line has more than 1,000 characters"),
        ("r.csv.gz", "q,a\n" + "x" * 2000 + ",1\n", "a line has more than 1,000 characters"),
        ("r.csv", 'q,a\n"' + "x\n" * 1000, "not a table .*field larger"),
    ],
)
def test_a_line_or_a_cell_without_bounds_is_an_error_before_it_fills_the_memory(
    tmp_path, monkeypatch, name, text, said
):
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: {said}"):
        list(read_rows(SourceConfig(str(tmp_path / name)), None, 0))


def test_bad_lines_are_told_with_their_number(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"question": "q", "answer": 1}\n\nnot json\n["x"]\n{"question": "\xff"}\n')
    assert [(number, re.sub(r" \(.*", "", row) if isinstance(row, str) else "row") for number, row in read_rows(
        SourceConfig(str(path)), None, 0
    )] == [(1, "row"), (3, "not valid JSON"), (4, "a list, not a JSON object"), (5, "not UTF-8")]  # fmt: skip
    (tmp_path / "r.csv").write_text("question,answer\nq\nq,1\nq,1,2\n")
    assert [isinstance(row, str) for _, row in read_rows(SourceConfig(str(tmp_path / "r.csv")), None, 0)] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.jsonl", "r.json"])
def test_a_byte_order_mark_and_line_ends_of_windows_are_no_part_of_a_row(tmp_path, name):
    table = "q,a\r\nWhat?,1\r\n".replace(",", "\t" if name == "r.tsv" else ",")
    rows = {"r.jsonl": '{"q": "What?", "a": "1"}\r\n', "r.json": '[{"q": "What?",\r\n"a": "1"}]\r\n'}
    (tmp_path / name).write_bytes(rows.get(name, table).encode("utf-8-sig"))
    assert list(read_rows(SourceConfig(str(tmp_path / name)), None, 0)) == [(1, {"q": "What?", "a": "1"})]


def test_columns_need_names_that_differ_and_spaces_around_them_do_not_count(tmp_path):
    (tmp_path / "r.csv").write_text(",q , a,,\n0,What?, 1,,\n")
    assert list(read_rows(SourceConfig(str(tmp_path / "r.csv")), None, 0)) == [(1, {"q": "What?", "a": " 1"})]
    (tmp_path / "r.csv").write_text("q,a,a\nWhat?,1,2\n")
    with pytest.raises(ValueError, match=r"r\.csv: two columns are called 'a'; rename one"):
        list(read_rows(SourceConfig(str(tmp_path / "r.csv")), None, 0))


def test_a_table_in_utf_16_says_so(tmp_path):
    (tmp_path / "r.csv").write_bytes("q,a\nWhat?,1\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"r\.csv: not UTF-8 \(maybe UTF-16\); save it as UTF-8"):
        list(read_rows(SourceConfig(str(tmp_path / "r.csv")), None, 0))


@pytest.mark.parametrize(
    ("columns", "row", "reason"),
    [
        ({"question": "q", "answer": "b"}, ROW, "no column 'b'; there are a, extra, q"),
        ({"question": "q", "answer": "a"}, {"q": "", "a": 1}, "no question"),
        ({"question": "q", "answer": "a"}, {"q": "x", "a": None}, "no answer"),
        (
            {"question": "q", "answer": "a"},
            {"q": "x", "a": ["1"]},
            "'answer' is a list, not text; take one of it by a rule",
        ),
        (
            {"question": "q", "answer": ["a", "integer"]},
            {"q": "x", "a": "1.5"},
            "rule integer: '1.5' is no whole number",
        ),
        ({"question": "q", "answer": "a", "solution": "slution"}, ROW, "no column 'slution'"),
        ({"question": "q", "answer": "a", "metadata.x": "x"}, {**ROW, "x": {1, 2}}, "metadata cannot be saved"),
        (
            {},
            {"question": "q", "answer": "1", "hint": "h"},
            "'hint' is no field of a problem; set columns: {question: COLUMN, answer: COLUMN}; there are answer, hint",
        ),
        (
            {"question": "q", "answer": ["a", "first"]},
            {"q": "x", "a": 3},
            "malformed: column 'a', rule first: cannot take the type int",
        ),
        (
            {"question": "q", "answer": "a"},
            {"q": "x", "a": "['1', '2']"},
            "malformed: the answer is a list, ['1', '2']; use",
        ),
        ({"question": "q", "answer": "a"}, {"q": "x", "a": float("inf")}, "malformed: 'answer' is inf"),
        (
            {"question": "q", "answer": "a", "grader": "g"},
            {"q": "x", "a": "1", "g": "maths"},
            "unknown grader: no grader 'maths'",
        ),
    ],
)
def test_a_row_that_is_no_problem_says_why(columns, row, reason):
    with pytest.raises(RowRejected, match=re.escape(reason)):
        to_problem(row, 1, "s", SourceConfig("x.jsonl", columns=columns), 0)


@pytest.mark.parametrize(
    ("rule", "value", "taken"),
    [
        ("after_hashes", "a #### b\n#### 1,200 ", "1,200"),
        ("no_commas", "1,200", "1200"),
        ("no_calculator", "3+4=<<3+4=7>>7", "3+4=7"),
        ("last_boxed", r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("last_boxed", r"so \fbox{7}", "7"),
        ("last_boxed", r"so $\boxed 5$", "5"),
        ("no_dollars", " $69$,$84$ ", "69,84"),
        ("first", ["x", "y"], "x"),
        ("integer", "025", "25"),
        ("integer", 27.0, "27"),
        ("integer", "-007", "-7"),
        ("strip", " a\n", "a"),
        ("from_json", '{"a": 1}', {"a": 1}),
        ("from_json", "['1', None]", ["1", None]),
        ("test_cases", "[1]", [1]),
    ],
)
def test_rules_take_the_answer(rule, value, taken):
    assert RULES[rule](value) == taken


@pytest.mark.parametrize(
    ("rule", "value"),
    [("after_hashes", "7"), ("last_boxed", r"\boxed{"), ("first", []), ("first", "ab"), ("integer", "1.5"),
     ("from_json", "print(1)"), ("from_json", "["), ("test_cases", "x"), ("test_cases", "{}")],
)  # fmt: skip
def test_rules_refuse_what_they_cannot_take(rule, value):
    with pytest.raises((ValueError, TypeError)):
        RULES[rule](value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("sources.s.columns={question: q}", "sources.s.columns: no column for answer"),
        ("sources.s.columns={question: q, answer: [a, lastboxed]}", "no rule 'lastboxed'; there are after_hashes"),
        ("sources.s.columns={question: q, answr: a}", "'answr' is no field of a problem"),
        ("sources.s.columns={question: q, answer: []}", "sources.s.columns: answer has no column"),
        ("sources.s.columns={question: q, answer: ''}", "sources.s.columns: answer has no column"),
        ("sources.s.constants={stratums: a}", "'stratums' is no field of a problem"),
        (
            "sources.s.constants={grader: maths}",
            "no grader 'maths'; use choice, exact, math, ",
        ),
        (
            "sources.s.columns.answer=final",
            "sources.s.columns.answer: set all of it at once: sources.s.columns={answer: final, ...}",
        ),
        ("sources.s.path=none.jsonl", "none.jsonl: no such file"),
    ],
)
def test_a_wrong_map_fails_before_anything_is_written(tmp_path, capsys, settings, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("sources: {s: {path: rows.jsonl}}\n")
    with pytest.raises(SystemExit):
        main(["problems", "r.yaml", settings])
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"] or "no such file" in said


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"q": "Q", "a": "1", "m": "\ud800"}, {"metadata.m": "m"}),
        ({"q": "Q", "a": "1", "m": json.loads("[" * 900 + "]" * 900)}, {"metadata.m": "m"}),
        ({"q": "Q", "a": "1", "m": "[" * 200_000}, {"metadata.m": ["m", "from_json"]}),
        ({"q": "Q", "a": "1", "m": {"x": 1}}, {"metadata.m": ["m", "first"]}),
        ({"q": "Q", "a": "1", "m": packed(b"\x80\x02Nr\xff\xff\xff\x7f.")}, {"metadata.m": ["m", "test_cases"]}),
    ],
    ids=["surrogate", "deep", "deep text", "object", "pickle of much"],
)
def test_an_odd_cell_rejects_its_row_and_nothing_else(row, columns):
    source = SourceConfig("x.jsonl", columns={"question": "q", "answer": "a", **columns})
    with pytest.raises(RowRejected):
        to_problem(row, 1, "s", source, 0)
