"""Cleaning: duplicates against slow twins, splits that do not depend on other rows, and the folder `guide problems` leaves."""

import fcntl
import json
import os
import random
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress
from tiny_models import tiny_model, tiny_tokenizer

from guide_rl import atomic_files
from guide_rl.cli import main
from guide_rl.config import DuplicatesConfig, GradingConfig, ProblemsRecipe
from guide_rl.demo.world import BASE_MODEL
from guide_rl.problems import load_problems, preparation
from guide_rl.problems.cleaning import _pairs, find_matches, normalised, shingles, similarity, splits_of, words_of
from guide_rl.problems.preparation import prepare, tokenizer_of, unreadable_answers
from guide_rl.recipes import read_recipe
from guide_rl.run_folder import RunFolder
from guide_rl.types import Problem

WORDS = [f"word{letter}" for letter in "abcdefghijklmnopqrstuv"]


def corpus(seed: int, count: int = 120) -> tuple[list[str], list[str]]:
    """Random questions and answers, with copies edited by 0 to 3 words."""
    rng = random.Random(seed)
    questions: list[str] = []
    answers: list[str] = []
    for _ in range(count):
        if questions and rng.random() < 0.5:
            source = rng.randrange(len(questions))
            words = questions[source].split()
            for _ in range(rng.randint(0, 3)):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
            questions.append(" ".join(words) if rng.random() < 0.8 else " ".join(words).upper())
            answers.append(rng.choice([answers[source], str(rng.randint(1, 9))]))
        else:
            questions.append(" ".join(rng.choices(WORDS, k=rng.randint(3, 40))))
            answers.append(str(rng.randint(1, 9)))
    return questions, answers


def slow_shingles(question: str, n: int) -> set[tuple[str, ...]]:
    """Runs of n words of a text without signs; of a shorter one, all of it."""
    words = question.casefold().split()
    return {tuple(words[i : i + n]) for i in range(len(words)) if i + n <= len(words)} or {tuple(words)}


def slow_matches(questions, answers, reference, config):
    """Every pair, one after the other: later question -> the earlier one that it is the same as."""
    found = {}
    keep = set(range(reference))
    for i, question in enumerate(questions):
        if i < reference:
            continue
        exact = [j for j in range(i) if questions[j].casefold().split() == question.casefold().split()]
        first = next((j for j in exact if j not in found and (j < reference or config.exact)), None)
        if first is None:
            for j in sorted(keep):
                a, b = slow_shingles(questions[j], config.shingle), slow_shingles(question, config.shingle)
                alike = len(a & b) / len(a | b) >= config.threshold
                held = len(a & b) / len(a)
                alike |= j < reference and held >= config.threshold and (held == 1 or len(a) >= 10)
                allowed = j < reference or (config.near and (not config.same_answer or answers[j] == answers[i]))
                if alike and allowed:
                    first = j
                    break
        if first is None:
            keep.add(i)
        else:
            found[i] = first
    return found


@pytest.mark.parametrize("reference", [0, 30])
@pytest.mark.parametrize(
    "config",
    [
        DuplicatesConfig(),
        DuplicatesConfig(near=False),
        DuplicatesConfig(same_answer=False, threshold=0.8, shingle=2),
        DuplicatesConfig(exact=False, near=False),
    ],
    ids=["default", "exact", "any answer", "off"],
)
def test_matches_agree_with_comparing_every_pair(config, reference):
    rng = random.Random(1)
    total = 0
    for seed in range(4):
        questions, answers = corpus(seed)
        order = list(range(len(questions)))
        rng.shuffle(order)
        questions, answers = [questions[i] for i in order], [answers[i] for i in order]
        found = find_matches(questions, answers, reference, config)
        expected = slow_matches(questions, answers, reference, config)
        # Of several earlier ones, an exact copy may be named where a near one comes first.
        assert set(found) == set(expected)
        total += len(found)
    assert (total > 0) == (config.exact or bool(reference))


def test_similarity_is_that_of_the_sets():
    for a, b in combinations(corpus(3, 30)[0], 2):
        x, y = slow_shingles(a, 3), slow_shingles(b, 3)
        assert similarity(shingles(a, 3), shingles(b, 3)) == pytest.approx(len(x & y) / len(x | y))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What  is\n$x$?", "what is x ?".replace("x ?", "x?")),
        ("ﬁnd \uff12", "Find 2"),
        ("Straße", "STRASSE"),
        (r"\(x\) \[y\]", "$x$ $$y$$"),
        ("co\u00adop\u200b x\u2061(2\u2062y)\ufeff", "coop x(2y)"),
    ],
)
def test_spelling_does_not_make_a_question_another(a, b):
    assert normalised(a).replace(" ", "") == normalised(b).replace(" ", "")


@pytest.mark.parametrize(("a", "b"), [("2+3", "2-3"), ("x^2", "x_2"), ("12", "1 2"), ("f(x)", "f[x]")])
def test_signs_make_a_question_another(a, b):
    assert normalised(a) != normalised(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"If $x \leq \dfrac{1}{2}$, find $\left(x, 1\right)$.", r"if \( x\le\frac{1}{2} \) find \[(x,\,1)\]"),
        ("A \"van\" costs $1{,}240; how far?", "a van costs \\$1240: how far"),
        (r"Find $x_{2} \times 3 \geq \pi$", "Find x_2 × 3 ≥ π!".replace("!", "...")),  # noqa: RUF001
        ("几何、问题。", "几何问题"),
        ("2 − 1", "2 - 1"),  # noqa: RUF001
    ],
)  # fmt: skip
def test_punctuation_and_the_spelling_of_latex_make_no_other_words(a, b):
    assert words_of(a) == words_of(b)


@pytest.mark.parametrize(
    ("a", "b"), [("2+3", "2-3"), ("x^2", "x_2"), ("1.5", "15"), ("1,2", "12"), ("5!", "5"), ("?", "!?")]
)
def test_operators_and_numbers_make_other_words(a, b):
    assert words_of(a) != words_of(b)


LONG = "A boat runs 10 miles in 2 hours down the long river before noon; how fast is it there, and how far from home?"
SUFFIX = " Please reason step by step, and put your final answer within \\boxed{}."


def test_what_stands_around_an_evaluation_question_does_not_hide_it():
    others = ["What is the sum of 2 and 3 here?" + SUFFIX, "Factor $t^2-25$." + SUFFIX]
    copies = [f"## Problem\n\n{LONG}{3 * SUFFIX}", "Factor \\(t^2 - 49\\)." + SUFFIX]
    evaluation = [LONG, "Factor $t^2-49$.", "What is the sum?"]
    found = find_matches([*evaluation, *copies, *others], ["1"] * 7, 3, DuplicatesConfig(near=False))
    assert {i: match.earlier for i, match in found.items()} == {3: 0, 4: 1, 5: 2}
    assert found[3].similarity == 1


def test_all_pairs_of_a_few_that_look_alike_are_proposed_and_of_many_no_square_of_them():
    def proposed(count):
        return len(_pairs(np.ones((count, 128), np.uint32), [0] * count))

    assert proposed(50) == 50 * 49 / 2
    assert proposed(3000) < 3000 * 100


def test_a_copy_of_what_matches_an_evaluation_question_is_told_as_a_match_of_it():
    evaluation = "Alice has twelve red apples and gives five of them to Bob; how many apples does she keep at home?"
    edited = f"Problem 7. {evaluation} Explain."
    found = find_matches([evaluation, edited, edited.upper()], ["7"] * 3, 1, DuplicatesConfig())
    assert [(found[i].earlier, found[i].kind) for i in (1, 2)] == [(0, "near"), (0, "near")]


def test_other_numbers_with_another_answer_are_a_variant_and_evaluation_problems_match_all_the_same():
    text = (
        "A boat runs {} miles in {} hours down the long river before noon; how fast is it there, and how far from home?"
    )
    questions, answers = [text.format(10, 2), text.format(90, 3)], ["5", "30"]
    assert find_matches(questions, answers, 0, DuplicatesConfig(threshold=0.5)) == {}
    assert set(find_matches(questions, ["5", "5"], 0, DuplicatesConfig(threshold=0.5))) == {1}
    assert set(find_matches(questions, answers, 1, DuplicatesConfig(threshold=0.5, near=False))) == {1}


def test_a_share_of_a_split_depends_on_the_question_and_the_seed_only():
    questions = [f"question {i}" for i in range(2000)]
    sizes = {"held_out": 0.1, "train": 0.9}
    names = splits_of(questions, sizes, seed=0)
    assert names[500:] == splits_of(questions[500:], sizes, seed=0)
    assert names != splits_of(questions, sizes, seed=1)
    assert 150 < names.count("held_out") < 250
    assert splits_of(["Question  7"], sizes, 0) == [names[7]]


def test_shares_are_drawn_anew_from_what_counts_leave():
    names = splits_of([f"question {i}" for i in range(2000)], {"test": 1000, "a": 0.5, "b": 0.5}, 0)
    assert names.count("test") == 1000
    assert 430 < names.count("a") < 570


def test_counts_of_splits_are_met_and_what_is_over_is_in_none():
    questions = [f"question {i}" for i in range(50)]
    names = splits_of(questions, {"test": 10, "train": 1.0}, 0)
    assert (names.count("test"), names.count("train")) == (10, 40)
    assert splits_of(questions, {"test": 10, "dev": 5}, 0).count(None) == 35


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with rows.jsonl, evaluation.jsonl and recipe.yaml, whose out is `out`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    long = "a boat that runs down the river at noon from here to there is how fast"
    write(
        tmp_path / "rows.jsonl",
        {"question": "1+1?", "answer": "2"},
        {"question": " 1+1? ", "answer": "3"},
        {"question": f"{long}?", "answer": "7"},
        {"question": f"Task 3. {long}?", "answer": "7"},
        {"question": "In the evaluation set?", "answer": "8"},
        {"question": "no answer", "answer": None},
        {"question": "words?", "answer": "\\frac{"},
        {"question": "also this one?", "answer": "\\frac{1}{2}"},
    )
    write(tmp_path / "evaluation.jsonl", {"question": "in the EVALUATION set?", "answer": "8", "id": "e"})
    (tmp_path / "recipe.yaml").write_text(
        "sources: {rows: {path: rows.jsonl}}\nout: out\nagainst: [evaluation.jsonl]\nunreadable_answers: unchecked\n"
    )
    return tmp_path


def test_every_row_is_kept_or_told_with_its_reason_and_the_summary_adds_up(folder, capsys):
    main(["problems", "recipe.yaml", "unreadable_answers=reject"])
    said = capsys.readouterr().out
    kept = [problem.id for problem in load_problems("out/problems.jsonl")]
    rejected = [json.loads(line) for line in Path("out/rejected.jsonl").read_text().splitlines()]
    assert kept == ["rows/1", "rows/3", "rows/8"]
    assert {row["row"]: row["reason"] for row in rejected} == {
        2: "duplicate",
        4: "near-duplicate",
        5: "evaluation problem",
        6: "no answer",
        7: "unreadable answer",
    }
    assert {row["row"]: row["matches"] for row in rejected if "matches" in row} == {
        2: "rows/1",
        4: "rows/3",
        5: "evaluation/e",
    }
    assert "with another answer: '2'" in next(row["detail"] for row in rejected if row["row"] == 2)
    summary = json.loads(Path("out/summary.json").read_text())
    counts = summary["sources"]["rows"]
    assert counts["rows"] == counts["kept"] + sum(counts["rejected"].values()) == 8
    found = {"problems": 1, "matched": [["rows/5", "evaluation/e"]], "not_compared": []}
    assert summary["against"] == {"evaluation.jsonl": found}
    assert "evaluation problem 1" in said
    assert "out/problems.jsonl: 3 problems" in said
    assert not any(line.endswith(" ") for line in said.splitlines())


def test_unreadable_answers_may_be_kept_and_are_counted(folder, capsys):
    main(["problems", "recipe.yaml", "unreadable_answers=keep"])
    assert json.loads(Path("out/summary.json").read_text())["unreadable_answers"] == ["rows/7"]
    assert "only the same spelling is correct: rows/7\n" in capsys.readouterr().out
    assert "rows/7" in {problem.id for problem in load_problems("out/problems.jsonl")}


def test_rows_that_their_grader_refuses_are_rejected_whether_answers_are_checked_or_not(tmp_path, capsys):
    tests = {"a": "assert f() == 1", "b": "assert f(", "c": "assert f(lambda: 1)"}
    write(tmp_path / "r.jsonl", *({"q": f"{name}?", "t": text, "answer": "1"} for name, text in tests.items()))
    (tmp_path / "r.yaml").write_text(
        f"sources: {{rows: {{path: {tmp_path}/r.jsonl, columns: {{question: q, answer: answer, metadata.tests: t}}, "
        f"constants: {{grader: unit_tests}}}}}}\nout: {tmp_path}/o\nunreadable_answers: unchecked\n"
    )
    main(["problems", str(tmp_path / "r.yaml")])
    rejected = [json.loads(line) for line in (tmp_path / "o/rejected.jsonl").read_text().splitlines()]
    assert [(row["row"], row["reason"]) for row in rejected] == [(2, "cannot be graded"), (3, "cannot be graded")]
    assert "metadata.tests is no Python: line 1" in rejected[0]["detail"]


def test_equal_answers_are_graded_once_by_the_math_grader_only_and_all_of_them_are_told(monkeypatch):
    def check(problems, pool):
        graded.extend(problem.id for problem in problems)
        return problems, []

    graded = []
    monkeypatch.setattr(preparation, "check_answers", check)
    answers = [("math", "x+1"), ("math", "x+1"), ("math", "7"), ("exact", "x+1"), ("exact", "x+1"), ("math", "x")]
    problems = [
        Problem(str(i), "?", answer, grader=grader) for i, (grader, answer) in enumerate([*answers, ("m:f", "x+1")])
    ]
    bad = unreadable_answers(problems, GradingConfig(workers=1), Progress(disable=True))
    assert graded == ["0", "3", "4", "5"]
    assert bad == {"0", "1", "3", "4", "5"}


def test_evaluation_sets_may_be_named_by_their_recipe(folder):
    (folder / "evaluation.yaml").write_text("sources: {e: {path: evaluation.jsonl}}\n")
    main(["problems", "recipe.yaml", "against=[evaluation.yaml]"])
    matched = json.loads(Path("out/summary.json").read_text())["against"]["evaluation.yaml"]["matched"]
    assert matched == [["rows/5", "e/e"]]


def test_an_evaluation_row_needs_its_question_only_and_one_without_is_told(folder, capsys):
    write(
        folder / "evaluation.jsonl",
        {"question": "in the EVALUATION set?", "answer": None},
        {"question": "Also this one?", "answer": ["x"], "hint": "h", "id": []},
        {"question": "1+1?"},
        {"question": " ", "answer": "1"},
        {"problem": "words?"},
    )
    main(["problems", "recipe.yaml"])
    found = json.loads(Path("out/summary.json").read_text())["against"]["evaluation.jsonl"]
    assert sorted(found["matched"]) == [
        ["rows/1", "evaluation/3"],
        ["rows/2", "evaluation/3"],
        ["rows/5", "evaluation/1"],
        ["rows/8", "evaluation/2"],
    ]
    assert found["problems"] == 3
    assert [(source, row) for source, row, _ in found["not_compared"]] == [("evaluation", 4), ("evaluation", 5)]
    said = capsys.readouterr().out
    assert "2 of its rows hold no readable question: evaluation, row 4: no question" in said
    assert "row 5: malformed: no column 'question'" in said


def test_rows_that_an_evaluation_recipe_leaves_out_are_not_compared(folder):
    (folder / "evaluation.yaml").write_text(
        "sources: {e: {path: evaluation.jsonl, where: {id: other}, columns: {question: question, answer: answer}}}\n"
    )
    write(
        folder / "evaluation.jsonl",
        {"question": "1+1?", "answer": "2", "id": "e"},
        {"question": "x?", "answer": None, "id": "other"},
    )
    main(["problems", "recipe.yaml", "against=[evaluation.yaml]"])
    found = json.loads(Path("out/summary.json").read_text())["against"]["evaluation.yaml"]
    assert found == {"problems": 1, "matched": [], "not_compared": []}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("against=[nope.jsonl]", "error: against: nope.jsonl: no such file"),
        ("against=[nope.yaml]", "error: against: nope.yaml: no such file"),
        ("against=[empty.jsonl]", "against: empty.jsonl holds no question"),
        (
            "against=[other.jsonl]",
            "against: other.jsonl holds no question that can be read (row 1: malformed: no column",
        ),
        ("model=no/such/model", "error: model: no/such/model: cannot load its tokenizer"),
        (
            "splits={held_out: 4, train: 1}",
            "splits.train is a share of too few problems and gets none; lower the counts",
        ),
    ],
)
def test_what_cannot_be_done_names_its_field_and_what_to_do(folder, capsys, settings, said):
    if settings.startswith("model"):
        pytest.importorskip("transformers")
    write(folder / "empty.jsonl")
    write(folder / "other.jsonl", {"q": "1?"})
    with pytest.raises(SystemExit):
        main(["problems", "recipe.yaml", settings])
    assert said in capsys.readouterr().err


def test_an_empty_name_of_a_folder_is_refused():
    with pytest.raises(ValueError, match="out is empty"):
        ProblemsRecipe(out="")


def test_a_folder_of_another_recipe_is_left_alone_and_the_same_recipe_may_run_again(folder, capsys):
    main(["problems", "recipe.yaml"])
    before = Path("out/problems.jsonl").read_text()
    Path("out/mine.txt").write_text("mine")
    main(["problems", "recipe.yaml"])
    assert Path("out/problems.jsonl").read_text() == before
    assert Path("out/mine.txt").read_text() == "mine"
    with pytest.raises(SystemExit):
        main(["problems", "recipe.yaml", "seed=1"])
    assert "not made by this recipe" in capsys.readouterr().err
    Path("out/summary.json").unlink()  # as a kill while files are put in place leaves it
    main(["problems", "recipe.yaml"])
    assert Path("out/problems.jsonl").read_text() == before
    Path("out/recipe.yaml").unlink()
    with pytest.raises(SystemExit):
        main(["problems", "recipe.yaml"])


def test_two_processes_do_not_make_one_folder(folder, capsys, monkeypatch):
    def second(*arguments):
        with pytest.raises(SystemExit):
            main(["problems", "recipe.yaml"])
        return read(*arguments)

    read = preparation._read
    monkeypatch.setattr(preparation, "_read", second)
    with pytest.raises(SystemExit):
        main(["problems", "recipe.yaml", "against=[none.jsonl]"])
    assert capsys.readouterr().err.splitlines()[0] == (
        "guide problems: error: out: another process is working on this run; wait for it or stop it"
    )
    assert not Path("out").exists()


def test_a_lock_that_its_last_holder_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    flock, calls = fcntl.flock, []

    def removed_first(file, how):
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(how)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with RunFolder(tmp_path).lock(), pytest.raises(BlockingIOError):
        RunFolder(tmp_path).lock()


@pytest.mark.e2e
@pytest.mark.parametrize("stage", ["_compare", "write_folder"])
def test_what_a_kill_leaves_keeps_other_recipes_off_only_while_it_works(folder, stage):
    """A real process that waits where it is killed; write_folder waits when the first files are there."""
    (folder / "waits.py").write_text(
        "import sys, time\n"
        "from guide_rl import atomic_files, cli\n"
        "from guide_rl.problems import folder, preparation\n"
        "def wait(*_, **__):\n"
        "    print('waits', flush=True)\n"
        "    time.sleep(60)\n"
        f"if {stage!r} == '_compare': preparation._compare = wait\n"
        "else: folder.save_problems = wait\n"
        "cli.main(['problems', 'recipe.yaml'])\n"
    )
    with subprocess.Popen([sys.executable, "waits.py"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "waits\n"
        with pytest.raises(SystemExit):
            main(["problems", "recipe.yaml"])
        process.kill()
    main(["problems", "recipe.yaml"])
    assert {path.name for path in Path("out").iterdir()} == {
        "problems.jsonl",
        "rejected.jsonl",
        "recipe.yaml",
        "summary.json",
    }


@pytest.mark.e2e
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("stage", ["_read", "_compare", "write_folder"])
def test_an_interrupted_run_leaves_nothing(folder, monkeypatch, stage, error):
    def stop(*_: object) -> None:
        raise error

    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr(preparation, stage, stop)
    with pytest.raises(error):
        prepare(read_recipe(ProblemsRecipe, "recipe.yaml"))
    assert sorted(path.name for path in folder.iterdir()) == before


def test_filters_limits_and_strata_are_a_sources_own(folder):
    write(folder / "more.jsonl", *({"q": f"number {i}?", "a": i, "kind": ["even", "odd"][i % 2]} for i in range(9)))
    source = (
        "{path: more.jsonl, columns: {question: q, answer: a}, where: {kind: odd}, limit: 3, constants: {stratum: s}}"
    )
    (folder / "two.yaml").write_text(f"sources:\n  rows: {{path: rows.jsonl, limit: 1}}\n  more: {source}\nout: two\n")
    main(["problems", "two.yaml"])
    problems = load_problems("two/problems.jsonl")
    assert [(problem.id, problem.stratum) for problem in problems] == [
        ("rows/1", "rows"),
        ("more/2", "s"),
        ("more/4", "s"),
        ("more/6", "s"),
    ]
    counts = json.loads(Path("two/summary.json").read_text())["sources"]["more"]
    assert counts == {"rows": 6, "kept": 3, "rejected": {"filtered": 3}}


def test_a_repeated_id_is_rejected_and_nothing_left_is_an_error_with_a_reason(folder, capsys):
    write(folder / "rows.jsonl", {"id": 1, "question": "a b", "answer": 1}, {"id": 1, "question": "c d", "answer": 2})
    main(["problems", "recipe.yaml", "against=[]"])
    assert json.loads(Path("out/rejected.jsonl").read_text())["reason"] == "repeated id"
    write(folder / "rows.jsonl", {"problem": "a", "answer": 1})
    with pytest.raises(SystemExit):
        main(["problems", "recipe.yaml", "against=[]", "out=other"])
    assert (
        "no problem is left; 1 rows: malformed, such as rows, row 1: 'problem' is no field" in capsys.readouterr().err
    )


def test_splits_are_files_of_their_own_and_a_count_that_cannot_be_met_is_an_error(folder, capsys):
    main(["problems", "recipe.yaml", "splits={held_out: 2, train: 1}"])
    assert len(load_problems("out/held_out.jsonl")) == 2
    assert len(load_problems("out/train.jsonl")) == 2, "a size of at most 1 is a share, here of the rest"
    with pytest.raises(SystemExit):
        main(["problems", "recipe.yaml", "splits={held_out: 9, train: 1}", "out=b"])
    assert "splits.held_out asks for 9 and gets 4" in capsys.readouterr().err


@pytest.fixture
def tokenizer():
    """The demo's tokenizer."""
    pytest.importorskip("transformers")
    return Path(BASE_MODEL)


def test_prompts_over_the_limit_are_rejected_as_training_would_count_them(folder, tokenizer):
    main(["problems", "recipe.yaml", f"model={tokenizer}", "prompts.max_tokens=40"])
    rejected = [json.loads(line) for line in Path("out/rejected.jsonl").read_text().splitlines()]
    assert {row["row"] for row in rejected if row["reason"] == "too long"} == {3, 4}
    assert "tokens, over 40" in next(row["detail"] for row in rejected if row["reason"] == "too long")


def test_problems_are_shown_as_the_model_sees_them_plain_and_guided(folder, capsys, tokenizer):
    rows = ({"question": f"q{i}\x1b[31m?", "answer": "1", "guidance": "Think."} for i in range(3))
    write(folder / "p.jsonl", *rows)
    main(["problems", "--show", "2", "p.jsonl", f"model={tokenizer}", "prompts.system=Be very brief."])
    said = capsys.readouterr().out
    assert said.count("[HINT_START]\nThink.\n[HINT_END]") == 2
    assert said.count("Be very brief.") == 4
    assert "q2" not in said
    assert "tokens ===" in said
    assert "\x1b" not in said
    main(["problems", "--show=1", "p.jsonl"])
    assert "[user]\nq0" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", ["--show", "--show x p.jsonl", "--show 0 p.jsonl", "--show 3"])
def test_show_says_what_it_takes(folder, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["problems", *arguments.split()])
    assert stop.value.code == 2
    assert "--show takes a number of problems and a problem file" in capsys.readouterr().err


@pytest.mark.e2e
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_kill_while_files_are_replaced_leaves_a_folder_that_the_same_command_mends(folder, monkeypatch, nth):
    main(["problems", "recipe.yaml"])
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    replace, done = os.replace, []

    def dies(*paths) -> None:
        done.append(replace(*paths))
        if len(done) == nth:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(atomic_files.os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            prepare(read_recipe(ProblemsRecipe, "recipe.yaml"))
    assert Path("out/summary.json").exists() == (nth in (1, 4))  # there only beside the files that it sums up
    main(["problems", "recipe.yaml"])
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_prompts_are_measured_with_the_tokenizer_that_training_loads(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)  # of a class that AutoTokenizer rebuilds for some models
    tiny_model("qwen2").save_pretrained(tmp_path)
    text = "a b  c"
    assert tokenizer_of(str(tmp_path))(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]
