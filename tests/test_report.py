"""Run folders become the paper's tables and figures; what cannot be compared is refused."""

import csv
import errno
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from run_folders import evaluation_run, training_run, write_lines

from guide_rl.analysis import report as report_module
from guide_rl.analysis.figures import gains_figure, guided_figure, reward_figure, save, training_figure
from guide_rl.analysis.gains import gain_rows
from guide_rl.analysis.metric_help import help_for
from guide_rl.analysis.metric_help import markdown as markdown_of_metrics
from guide_rl.analysis.report import ReportOptions, chosen_base, page_rollouts, report, summary, watch
from guide_rl.analysis.run_data import Measured, named_runs, read_lines, read_run, rollouts
from guide_rl.analysis.table_files import Cell, Table, as_csv, latex, markdown
from guide_rl.analysis.tables import answers_table, chosen_k, differences_table, gains_table, results_table
from guide_rl.equations.gains import absolute_k
from guide_rl.equations.pass_at_k import pass_at_k_curves


def half(i: int, n: int, greedy: bool) -> bool:
    """The first half of ten problems."""
    return i < 5


def better(i: int, n: int, greedy: bool) -> bool:
    """The first eight of ten problems; one of four samples of the ninth."""
    return i < 8 or (i == 8 and not greedy and n == 0)


@pytest.fixture
def compared(tmp_path):
    run = evaluation_run(tmp_path / "eval", {"base": half, "guide": better}, benchmarks={"a": 10, "b": 30}, step=None)
    return Measured([read_run(run)])


def cells(table: Table) -> dict[tuple[str, ...], list[str]]:
    return {tuple(c.text for c in row[: table.heads]): [c.text for c in row[table.heads :]] for row in table.rows}


def test_the_results_table_has_benchmark_rows_method_columns_and_both_averages(compared):
    table = results_table(compared, 4)
    assert table.header == ("Benchmark", "Metric", "base", "guide")
    assert cells(table) == {
        ("a", "P@1"): ["50.00", "80.00"],
        ("a", "P@4"): ["50.00", "90.00"],
        ("b", "P@1"): ["16.67", "26.67"],
        ("b", "P@4"): ["16.67", "30.00"],
        ("Macro Avg.", "P@1"): ["33.33", "53.33"],
        ("Macro Avg.", "P@4"): ["33.33", "60.00"],
        ("Micro Avg.", "P@1"): ["25.00", "40.00"],
        ("Micro Avg.", "P@4"): ["25.00", "45.00"],
    }
    assert all([c.best for c in row[2:]] == [False, True] for row in table.rows)


def test_equal_results_are_not_bold(tmp_path):
    run = evaluation_run(tmp_path / "eval", {"one": half, "two": half}, benchmarks={"a": 10})
    assert not any(c.best for row in results_table(Measured([read_run(run)]), 4).rows for c in row)


def test_the_papers_intervals_are_those_of_its_table_4(tmp_path):
    """AIME 24 of Guide-GRPO: four greedy runs solve 9 of 30 problems and one 10; MATH500 P@16: 468 of 500."""

    def aime(i, n, greedy):
        return i < 9 + (greedy and n == 4)

    run = evaluation_run(tmp_path / "a", {"guide": aime}, benchmarks={"AIME 24": 30}, greedy_runs=5)
    assert cells(results_table(Measured([read_run(run)]), 4, "paper"))["AIME 24", "P@1"] == ["30.67 ± (1.31)"]

    def math500(i, n, greedy):
        return i < 468

    run = evaluation_run(tmp_path / "b", {"guide": math500}, benchmarks={"MATH500": 500}, samples=16)
    assert cells(results_table(Measured([read_run(run)]), 16, "paper"))["MATH500", "P@16"] == ["93.60 ± (0.54)"]


def test_bootstrap_intervals_hold_the_mean_and_widen_with_fewer_problems(compared):
    found = cells(results_table(compared, 4, "intervals"))
    widths = {}
    for key in (("a", "P@1"), ("b", "P@1")):
        mean, low, high = map(float, re.findall(r"[\d.]+", found[key][0]))
        assert low < mean < high
        widths[key[0]] = high - low
    assert widths["a"] > widths["b"]


def test_differences_are_paired_and_bold_where_they_exclude_0(compared):
    table = differences_table(compared, 4, "base")
    first = next(row for row in table.rows if row[0].text == "b" and row[1].text == "P@1")
    assert first[2].text.startswith("+10.00 [")
    assert table.header[2:] == ("guide",)
    equal = differences_table(compared, 4, "guide")
    assert next(row for row in equal.rows)[2].text.startswith("-30.00 [")


def test_gains_split_progress_by_the_reach_of_the_untrained_policy(compared):
    rows = gain_rows(compared, 4, base=("base", None))
    assert {(row.model, row.benchmark) for row in rows} == {("guide", "a"), ("guide", "b"), ("guide", "(all)")}
    rows = [row for row in rows if not row.absolute]
    found = next(row for row in rows if row.benchmark == "a").trials
    assert (found.progress.mean, found.capability.mean, found.distillation.mean) == (3, 3, 0)
    whole = next(row for row in rows if row.benchmark == "(all)").trials
    assert whole.progress.mean == 6
    assert cells(gains_table(rows))["guide", "(all)", "4"][1:4] == ["30.0 ± 0.0", "6.0 ± 0.0", "0.0 ± 0.0"]


def test_gains_of_a_training_run_are_against_its_own_step_0(tmp_path):
    measured = Measured([read_run(training_run(tmp_path / "run", steps=4, problems=3))])
    (row,) = (row for row in gain_rows(measured, 4, base=None) if not row.absolute)
    assert (row.step, row.trials.capability.mean, row.trials.net.mean) == (4, 1, 1)


def test_gains_also_have_the_absolute_k_where_samples_reach_it(tmp_path):
    def often(i, n, greedy):
        return not greedy and (n + 1) % (i + 2) == 0

    path = evaluation_run(tmp_path / "e", {"base": often, "m": better}, benchmarks={"x": 10}, samples=64)
    table = cells(gains_table(gain_rows(Measured([read_run(path)]), 16, base=("base", None))))
    names = [key[2] for key in table]
    assert names[0] == "16"
    curve = pass_at_k_curves([[often(i, n, False) for n in range(64)] for i in range(10)], range(1, 65)).mean(0)
    assert names[1:] == [f"{absolute_k(curve)} (absolute)"]
    few = evaluation_run(tmp_path / "f", {"base": often, "m": better}, benchmarks={"x": 10}, samples=4)
    assert [row.absolute for row in gain_rows(Measured([read_run(few)]), 4, base=("base", None))] == [False]


def test_figure_1_leaves_room_above_its_curves_and_files_of_figure_2_are_the_models(tmp_path):
    paths = [
        evaluation_run(tmp_path / f"{step}", {"m/1": half, "n": better}, benchmarks={"x": 10}, step=step, guided=half)
        for step in (0, 8, 16)
    ]
    report([str(path) for path in paths], ReportOptions(tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").glob("figure_2*.png")}
    assert names == {"figure_2_guidance_m_1.png", "figure_2_guidance_n.png"}
    rows = gain_rows(Measured([read_run(path) for path in paths]), 4, base=("m/1", 0))
    for axis in gains_figure(rows, 4, "x").figure.axes:
        assert axis.get_ylim()[1] > 1.03 * axis.dataLim.ymax


def test_a_base_at_a_step_is_a_model_of_its_own(tmp_path):
    runs = [training_run(tmp_path / name) for name in ("a", "b")]
    report([str(run) for run in runs], ReportOptions(tmp_path / "out", base="a@0"))
    results = list(csv.reader((tmp_path / "out/results.csv").read_text().splitlines()))
    assert results[0] == ["Benchmark", "Metric", "a@0", "a", "b"]
    differences = list(csv.reader((tmp_path / "out/differences.csv").read_text().splitlines()))
    assert differences[0] == ["Benchmark", "Metric", "a", "b"]
    assert differences[1][2].startswith("+33.33")


def test_k_is_the_largest_power_of_two_that_all_have_and_too_large_a_wish_says_what_to_do(compared):
    assert chosen_k(compared) == 4
    with pytest.raises(ValueError, match=r"--k 16: base has only 4 sampled rollouts a problem on a; .*samples="):
        chosen_k(compared, 16)
    with pytest.raises(ValueError, match="--k 0: must be at least 1"):
        chosen_k(compared, 0)


@pytest.mark.parametrize("missing", ["problem", "question"])
def test_models_on_different_problems_are_compared_only_when_told(tmp_path, missing):
    one = evaluation_run(tmp_path / "one", {"base": half}, benchmarks={"a": 10})
    other = evaluation_run(tmp_path / "two", {"guide": half}, benchmarks={"a": 10 if missing == "question" else 9})
    if missing == "question":
        text = (other / "problems.jsonl").read_text().replace("What is 9 + 9?", "What is 9 + 8?")
        (other / "problems.jsonl").write_text(text)
    runs = [read_run(one), read_run(other)]
    with pytest.raises(
        ValueError, match=r"a: 1 problems are not the same for all models, such as '9'.*9 common ones with --common"
    ):
        Measured(runs)
    measured = Measured(runs, common=True)
    assert cells(results_table(measured, 4))["a", "P@1"] == ["55.56", "55.56"]
    assert "9 common ones are compared" in measured.notes[0]


def test_evaluations_under_other_settings_are_compared_and_it_is_said(tmp_path):
    for name, temperature in (("one", 1.0), ("two", 0.2)):
        path = evaluation_run(tmp_path / name, {name: half}, benchmarks={"a": 3})
        (path / "recipe.yaml").write_text(f"benchmarks: {{}}\ntemperature: {temperature}\nmax_tokens: 9\n")
    runs = [read_run(tmp_path / name) for name in ("one", "two")]
    assert Measured(runs).notes == ["temperature differs: one has 1.0, two has 0.2"]
    assert Measured(runs[:1]).notes == []


def test_models_without_a_problem_in_common_are_refused(tmp_path):
    runs = [read_run(evaluation_run(tmp_path / name, {name: half}, benchmarks={"a": 3})) for name in ("one", "two")]
    runs[1].correct = {s: {f"x{p}": v for p, v in found.items()} for s, found in runs[1].correct.items()}
    with pytest.raises(ValueError, match="no problem in common"):
        Measured(runs, common=True)


def test_two_runs_that_measured_the_same_are_refused(tmp_path):
    runs = [read_run(evaluation_run(tmp_path / name, {"m": half}, benchmarks={"a": 3})) for name in ("one", "two")]
    with pytest.raises(ValueError, match="both measured m on a"):
        Measured(runs)


def test_a_half_written_last_line_is_left_out_and_said(tmp_path):
    run = training_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "rew')
    found = read_run(run)
    assert [row["step"] for row in found.metrics] == [1, 2, 3, 4]
    assert found.notes == [f"{run}/metrics.jsonl: its last line is half written and was left out"]
    told: list[str] = []
    report([str(run)], ReportOptions(tmp_path / "out"), told.append)
    assert told[-1] == found.notes[0]


def test_any_other_malformed_line_is_an_error_that_names_it(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\nnot json\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl, line 2"):
        list(read_lines(tmp_path / "x.jsonl", []))


def test_a_line_of_results_without_a_field_is_an_error_that_names_both(tmp_path):
    run = evaluation_run(tmp_path / "e", {"m": half}, benchmarks={"x": 2})
    with (run / "results.jsonl").open("a") as file:
        file.write('{"model": "m"}\n')
    with pytest.raises(ValueError, match=r"results\.jsonl, line 5: no field 'step'"):
        read_run(run)


def test_a_held_out_evaluation_that_a_kill_cut_off_is_left_out_and_said(tmp_path):
    run = training_run(tmp_path / "run", steps=4)
    lines = (run / "held_out.jsonl").read_text()
    (run / "held_out.jsonl").write_text(lines[:-20])
    found = read_run(run)
    assert {setting.step for setting in found.correct} == {0}
    assert found.notes[0].endswith("its last line is half written and was left out")
    assert "the evaluation at step 4 is not whole" in found.notes[1]


def test_no_run_and_a_report_inside_a_run_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        named_runs([str(tmp_path)])
    run = training_run(tmp_path / "run")
    with pytest.raises(ValueError, match="holds a run; give the report another folder"):
        report([str(run)], ReportOptions(run))


def test_runs_have_their_folders_names_or_those_given(tmp_path):
    for name in ("one/grpo", "two/grpo", "guide"):
        training_run(tmp_path / name)
    paths = [str(tmp_path / name) for name in ("one/grpo", "two/grpo", "guide")]
    assert [run.name for run in named_runs(paths)] == ["one/grpo", "two/grpo", "guide"]
    named = named_runs([f"GRPO={paths[0]}", f"GRPO={paths[1]}", f"Guide={paths[2]}"])
    assert [run.name for run in named] == ["GRPO", "GRPO", "Guide"]
    assert Measured(named).models == ["GRPO", "GRPO (2)", "Guide"]


def test_a_name_tells_the_models_of_two_evaluations_apart(tmp_path):
    both = evaluation_run(tmp_path / "both", {"base": half, "m": half}, benchmarks={"a": 3})
    one = evaluation_run(tmp_path / "one", {"m": half}, benchmarks={"a": 3})
    runs = named_runs([f"A={both}", f"B={one}", f"B={one}", str(both)])
    assert Measured(runs).models == ["A: base", "A: m", "B", "B (2)", "base", "m"]
    assert [row[0].text for row in answers_table(runs).rows][:2] == ["A: base", "A: base"]


def test_a_name_may_stand_for_a_run_with_its_steps_and_for_its_final_model(tmp_path):
    run = training_run(tmp_path / "guide", steps=4)
    evaluation = evaluation_run(tmp_path / "eval", {"base": half, "guide": better}, benchmarks={"math": 10})
    measured = Measured(named_runs([str(run), str(evaluation)]))
    found = cells(results_table(measured, 4))
    assert found["held-out", "P@1"] == ["66.67", "-"]
    assert found["math", "P@1"] == ["80.00", "50.00"]
    assert chosen_k(measured) == 4
    rows = gain_rows(measured, 4, base=chosen_base(measured, None))
    assert {(row.model, row.step, row.benchmark) for row in rows} == {
        ("guide", None, "math"),
        ("guide", 4, "held-out"),
    }, "where base was not measured, the untrained policy is step 0"
    assert {key[:2] for key in cells(gains_table(rows))} == {("guide", "math"), ("guide", "held-out")}


def test_the_summary_tells_the_size_of_each_benchmark_in_order(tmp_path):
    run = read_run(evaluation_run(tmp_path / "e", {"m": half}, benchmarks={"x": 30, "y": 10, "z": 10}))
    assert "x, y, z (30 + 10 + 10 problems)" in summary([run], Measured([run]), 4)[-1]


def test_one_step_that_is_no_number_spoils_the_moving_averages_that_hold_it_only(tmp_path):
    path = training_run(tmp_path / "run", steps=40, reward=0.5)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows[4]["reward"], rows[5]["reward"], rows[6]["reward"] = float("nan"), float("inf"), None
    write_lines(path / "metrics.jsonl", rows)
    (line,) = reward_figure({"run": [read_run(path)]}).figure.axes[0].lines
    assert list(line.get_ydata()[[0, 3, -1]]) == [0.5, 0.5, 0.5]
    assert report([str(path)], ReportOptions(tmp_path / "out")).exists()


def test_a_figure_that_a_full_disk_cannot_take_is_named_and_the_old_one_stays(tmp_path, monkeypatch):
    drawn = reward_figure({"run": [read_run(training_run(tmp_path / "run"))]})
    save(drawn, tmp_path)
    before = (tmp_path / "figure_4_rewards.png").read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(drawn.figure, "savefig", full)
    with pytest.raises(OSError, match=r"figure_4_rewards\.png"):
        save(drawn, tmp_path)
    assert (tmp_path / "figure_4_rewards.png").read_bytes() == before


def shading(axis) -> tuple[np.ndarray, np.ndarray]:
    """The shaded area's low and high edge at each x."""
    points = axis.collections[0].get_paths()[0].vertices
    xs = sorted({x for x, _ in points})
    return tuple(np.array([edge(y for at, y in points if at == x) for x in xs]) for edge in (min, max))


def test_shading_is_the_standard_error_that_the_captions_say(tmp_path):
    rewards = {"one": [1.0, 5.0, 2.0, 4.0] * 5, "two": [2.0, 3.0, 2.5, 7.0] * 5}
    runs = []
    for name, values in rewards.items():
        path = training_run(tmp_path / name, steps=20)
        write_lines(path / "metrics.jsonl", [{"step": i, "reward": y} for i, y in reversed(list(enumerate(values, 1)))])
        runs.append(read_run(path))

    def average(values, i):
        return statistics.fmean(values[max(0, i - 9) : i + 1])

    low, high = shading(reward_figure({"one": runs[:1]}).figure.axes[0])
    spread = statistics.stdev(rewards["one"][10:])
    assert high[19] - average(rewards["one"], 19) == pytest.approx(1.96 * spread / math.sqrt(10))
    assert high[0] == low[0] == 1
    low, high = shading(reward_figure({"both": runs}).figure.axes[0])
    for i in (0, 5, 19):
        ends = [average(values, i) for values in rewards.values()]
        middle, half_width = statistics.fmean(ends), 1.96 * statistics.stdev(ends) / math.sqrt(2)
        assert (low[i], high[i]) == pytest.approx((middle - half_width, middle + half_width))


def test_the_page_gets_every_curve_and_says_which_held_out_rollouts_are_greedy(tmp_path):
    run = read_run(training_run(tmp_path / "run", steps=3))
    assert report_module._page_run(run)["metrics"]["entropy"] == {"x": [1, 2, 3], "y": [1.0, 1 / 2, 1 / 3]}
    greedy = {(row["set"], row["temperature"]): row["greedy"] for row in rollouts(run) if row["set"] == "held-out"}
    assert greedy == {("held-out", 0.0): True, ("held-out", 1.0): False}


def test_steps_are_in_order_and_the_newest_is_shown(tmp_path):
    runs = [
        read_run(evaluation_run(tmp_path / str(step), {"m": rule}, benchmarks={"x": 10}, step=step, samples=20))
        for step, rule in ((1000, better), (3, half), (16, half))
    ]
    measured = Measured(runs)
    assert (measured.steps("m"), measured.last("m"), chosen_k(measured)) == ([3, 16, 1000], 1000, 16)
    assert cells(results_table(measured, 16))["x", "P@1"] == ["80.00"]


@pytest.mark.parametrize("name", ["a $x^$ b", "$\\foo$", "_hidden", "<b>&amp;", "a\x01b"])
def test_any_name_can_stand_in_a_figure(tmp_path, name):
    runs = [read_run(training_run(tmp_path / "run"), name)]
    (text,) = reward_figure({name: runs}).figure.legends[0].get_texts()
    assert text.get_text() == name.replace("$", r"\$").replace("\x01", "\N{REPLACEMENT CHARACTER}")
    assert save(reward_figure({name: runs}), tmp_path)


@pytest.mark.parametrize("text", ["", "- 1\n", "3\n", "a: [\n", "\t1", "!!python/name:os.system x\n", "\x01"])
def test_a_recipe_that_is_none_is_named(tmp_path, text):
    (training_run(tmp_path / "run") / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"run/recipe\.yaml.*; restore it"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("metrics.jsonl", {"reward": 1}, "no field 'step'"),
        ("metrics.jsonl", {"step": "x"}, "field 'step' is 'x'"),
        ("problems.jsonl", {}, "no field 'set'"),
        ("problems.jsonl", {"set": "train", "id": [0]}, r"field 'id' is \[0\]"),
        ("held_out.jsonl", {"step": 1}, "no field"),
        ("rollouts.jsonl", {"problem_id": "0", "step": 1, "text": 7}, "field 'text' is 7"),
    ],
)
def test_a_line_without_what_every_line_has_is_named(tmp_path, file, line, message):
    run = training_run(tmp_path / "run")
    number = len((run / file).read_text().splitlines()) + 1
    with (run / file).open("a") as lines:
        lines.write(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=rf"{file}, line {number}: {message}"):
        report([str(run)], ReportOptions(tmp_path / "out"))


def test_lines_nested_too_deeply_are_malformed(tmp_path):
    (tmp_path / "x.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(ValueError, match=r"x\.jsonl, line 1"):
        list(read_lines(tmp_path / "x.jsonl", []))


def test_the_untrained_policy_can_be_named(tmp_path):
    measured = Measured([read_run(training_run(tmp_path / "run"))])
    assert chosen_base(measured, None) is None
    assert chosen_base(measured, "run@0") == ("run", 0)
    assert chosen_base(measured, "run") == ("run", 4)
    for wish, message in (("other", "no such model; there are run"), ("run@3", "there are 0, 4")):
        with pytest.raises(ValueError, match=message):
            chosen_base(measured, wish)


def test_figures_1_to_4_show_what_the_runs_hold(tmp_path):
    runs = [read_run(training_run(tmp_path / name, steps=4)) for name in ("a", "b")]
    runs[1].name = "a"
    figure = training_figure({"a": runs}).figure
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "Plain rollout accuracy",
        "Entropy of plain rollouts",
        "Length of plain rollouts",
    ]
    assert [len(axis.lines) for axis in figure.axes] == [1, 1, 1], "two seeds make one line"
    assert len(reward_figure({"a": runs[:1], "b": runs[1:]}).figure.axes[0].lines) == 2
    measured = Measured(runs[:1])
    assert gains_figure(gain_rows(measured, 4, base=None), 4, "held-out") is None, "one step after training is no curve"
    assert guided_figure(measured, "a", 4) is None, "nothing was sampled with guidance"


def test_figure_1_has_capability_distillation_and_progress_over_steps(tmp_path):
    runs = [
        read_run(evaluation_run(tmp_path / str(step), {"m": rule}, benchmarks={"x": 10}, step=step))
        for step, rule in ((0, half), (16, half), (32, better))
    ]
    rows = gain_rows(Measured(runs), 4, base=None)
    figure = gains_figure(rows, 4, "x").figure
    assert [list(axis.lines[0].get_ydata()) for axis in figure.axes] == [[0, 3], [0, 0], [0, 3]]
    assert list(figure.axes[0].lines[0].get_xdata()) == [16, 32]


def test_figure_2_compares_plain_and_guided_on_the_same_problems(tmp_path):
    def sometimes(i, n, greedy):
        return i < 5 and not greedy and (i + n) % 4 == 0

    path = evaluation_run(
        tmp_path / "e", {"m": sometimes}, benchmarks={"x": 40}, samples=16, guided=lambda i, n, g: i < 20
    )
    rows = [json.loads(line) for line in (path / "results.jsonl").read_text().splitlines()]
    write_lines(path / "results.jsonl", [r for r in rows if not (r["guided"] and r["problem_id"] == "0")])
    drawn = guided_figure(Measured([read_run(path)]), "m", 4)
    everything, out_of_reach, within = drawn.figure.axes
    assert everything.get_title(loc="left") == "All: 39 problems", (
        "a problem without guided rollouts is in neither curve"
    )
    plain, guided = everything.lines
    assert guided.get_ydata()[0] == pytest.approx(19 / 39)
    assert plain.get_ydata()[0] == pytest.approx(4 * 0.25 / 39)
    (missed,) = map(int, re.findall(r"(\d+) problems", out_of_reach.get_title(loc="left")))
    assert 35 <= missed < 39, "those never solved, and those that the four classifying samples missed"
    assert out_of_reach.lines[1].get_ydata()[0] == pytest.approx((15 + missed - 35) / missed)
    assert "39 problems" in drawn.caption
    assert len(out_of_reach.collections) == 2, "an interval for each curve"
    assert within.get_title(loc="left").startswith("Within reach (D)")


def test_tables_are_written_as_markdown_latex_and_csv():
    table = Table("t", "T", "50 % of_it", ("Bench", "a|b"), ((Cell("x & y"), Cell("1.0 ± 2", True)),), heads=1)
    assert "| x & y | **1.0 ± 2** |" in markdown(table)
    assert "a\\|b" in markdown(table)
    assert r"x \& y & \textbf{1.0 $\pm$ 2} \\" in latex(table)
    assert r"\caption{50 \% of\_it}" in latex(table)
    assert list(csv.reader(as_csv(table).splitlines())) == [["Bench", "a|b"], ["x & y", "1.0 ± 2"]]


def test_answers_are_counted_apart(tmp_path):
    run = read_run(evaluation_run(tmp_path / "e", {"m": half}, benchmarks={"x": 10}))
    found = cells(answers_table([run]))
    assert found["m", "x", "sampled"] == ["40", "50.00", "50.00", "0.00", "0.00", "0.00"]


def test_the_report_writes_every_table_and_figure_and_the_page_and_reads_no_torch(tmp_path):
    runs = [training_run(tmp_path / "grpo"), training_run(tmp_path / "guide")]
    code = f"""
import sys
from pathlib import Path
from guide_rl.analysis.metric_help import help_for
from guide_rl.analysis.metric_help import markdown as markdown_of_metrics
from guide_rl.analysis.report import ReportOptions, report
report({[str(run) for run in runs]}, ReportOptions(Path({str(tmp_path / "out")!r})))
print("torch" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out == "False\n"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    tables = ("results", "intervals", "differences", "averages", "paper", "gains")
    assert names >= {f"{name}.{suffix}" for name in tables for suffix in ("md", "tex", "csv")}
    assert names >= {f"figure_{n}.{s}" for n in ("3_training", "4_rewards") for s in ("png", "svg")} | {"index.html"}
    assert not any(name.startswith(".") for name in names)


def test_the_same_runs_give_the_same_files(tmp_path):
    run = training_run(tmp_path / "run")
    for out in ("one", "two"):
        report([str(run)], ReportOptions(tmp_path / out))
    for path in (tmp_path / "one").iterdir():
        if path.suffix in (".svg", ".md", ".png"):
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_page_gets_every_rollout_with_its_problem(tmp_path):
    run = read_run(training_run(tmp_path / "run", steps=2))
    data = page_rollouts([run], 1000, [])
    assert len(data["rollouts"]["text"]) == len(list(rollouts(run))) == 2 * (3 * 2 + 2) + 2 * 3 * 5
    guided = [i for i, flag in enumerate(data["rollouts"]["guided"]) if flag]
    assert data["rollouts"]["ratios"][guided[0]] == [0.5, 2.0]
    assert data["problems"][data["rollouts"]["problem"][guided[0]]]["question"] == "What is 1 + 1?"
    assert {problem["set"] for problem in data["problems"]} == {"train", "held-out"}


def test_a_page_with_too_many_rollouts_shows_all_of_some_problems_and_says_so(tmp_path):
    runs = [read_run(training_run(tmp_path / name, problems=20)) for name in ("a", "b")]
    notes: list[str] = []
    data = page_rollouts(runs, 200, notes)
    shown = {(p["set"], p["id"], p["run"]) for p in data["problems"]}
    assert 0 < len(data["rollouts"]["text"]) <= 200
    assert {key[:2] for key in shown if key[2] == 0} == {key[:2] for key in shown if key[2] == 1}
    assert re.fullmatch(r"the page shows \d+ of 80 problems .*", notes[0])


def test_watching_writes_the_report_again_when_a_run_has_grown(tmp_path, monkeypatch):
    run, told, naps = tmp_path / "run", [], []

    def sleep(seconds):
        naps.append(len(told))
        if len(naps) == 1:
            training_run(run)
        elif len(naps) == 3:
            training_run(run, steps=5)
        elif len(naps) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(report_module.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        watch([str(run)], ReportOptions(tmp_path / "out"), told.append)
    assert "waiting" in told[0]
    assert naps == [1, 2, 2, 3, 3], "written once for each change"


def test_the_command_says_where_the_page_is(tmp_path):
    run = training_run(tmp_path / "run")
    command = [sys.executable, "-m", "guide_rl.cli", "report", str(run), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"{tmp_path / 'out/index.html'}\n"
    assert Path(done.stdout.strip()).stat().st_size > 1000


def test_the_docs_table_of_metrics_is_the_one_that_the_page_explains_curves_with():
    assert markdown_of_metrics() in (Path(__file__).parent.parent / "docs/metrics.md").read_text()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("accuracy/plain/easy", "of one stratum"),
        ("grades/timeout", "that verdict"),
        ("evaluation/pass@16/hard", "unbiased pass@k"),
        ("evaluation/pass@1/hard", "greedy accuracy"),
        ("own_metric", ""),
    ],
)
def test_every_key_is_explained_by_the_general_one(key, said):
    assert said in help_for(key)
    assert bool(said) == bool(help_for(key))
