"""The report's page: one file that needs nothing else, read by a real browser."""

import base64
import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from chromium import MISSING, chromium, visit

from guide_rl.analysis.page import BLOCK_CHARACTERS, PARTS, page_html, write_page

HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'><!-- <script> --> &amp; {{script}} "
    "\u2028\u2029 \ud800 \x00 \u202eabc\u202c \u2066 é 語 \U0001d50a javascript:alert(1)"
)
"""What a model may write."""
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20">'
    '<defs><path id="p" d="M0 0H{0}V20H0Z"/></defs><use href="#p"/></svg>'
)
FILLERS = 300
SLOW_BLOCKS = """() => {
  const quick = Blocks.prototype.holding;
  Blocks.prototype.holding = async function (row) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    return quick.call(this, row);
  };
}"""
LONG = "begin " + "middle " * 400 + "end"


def rollout(
    problem: int, step: int | None, correct: int, *, guided: int = 0, index: int = 0, **more: Any
) -> dict[str, Any]:
    """One row of the columns."""
    row = {
        "problem": problem,
        "step": step,
        "model": "",
        "index": index,
        "guided": guided,
        "greedy": 0,
        "reward": float(correct),
        "advantage": None,
        "correct": correct,
        "verdict": "correct" if correct else "wrong",
        "finish": "stop",
        "tokens": 12,
        "text": f"rollout {index} of problem {problem} at {step}",
        "ratios": None,
        "pieces": None,
    }
    return row | more


def sample() -> dict[str, Any]:
    """Five problems that the filters tell apart, and fillers that are solved."""
    pieces = {"pieces": ["So", " the", "\nanswer", " 4", "<eos>"], "ratios": [1.0, 0.001, 0.5, 20.0, None]}
    rows = [
        rollout(0, 3, 0, index=0, advantage=-0.5774, text="Plain words of a failure"),
        rollout(0, 3, 0, index=1, finish="length", verdict="truncated", text=LONG),
        rollout(0, 3, 0, guided=1, index=0),
        rollout(0, 3, 1, guided=1, index=1, advantage=1.5, text="So the\nanswer 4", **pieces),
        rollout(0, 7, 1, index=0),
        rollout(0, 7, 0, index=1),
        *(rollout(1, step, 0, index=index) for step in (1, 2) for index in (0, 1)),
        *(rollout(2, 1, int(index < 2), index=index) for index in range(3)),
        *(rollout(2, 9, 0, index=index, reward=index / 10) for index in range(3)),
        rollout(3, 4, 1, index=0),
        rollout(3, 4, 0, index=1),
        rollout(4, None, 1, model="base"),
        *(rollout(4, 10, 0, model="tuned", greedy=1, index=index) for index in (0, 1)),
        *(rollout(5 + n, 1, 1 - index, index=index) for n in range(FILLERS) for index in (0, 1)),
    ]
    ids = ["rescued", "never", "regressed", "solved", "evaluated", *(f"filler-{n}" for n in range(FILLERS))]
    return {
        "title": "A report",
        "made": "2026-01-02 03:04",
        "summary": ["Two runs were compared."],
        "notes": ["one line was skipped"],
        "tables": [
            {
                "title": "Table 1",
                "caption": "Percent.",
                "header": ["Benchmark", "A", "B"],
                "rows": [
                    [{"text": "MATH", "head": True}, {"text": "10.0", "best": False}, {"text": "20.0", "best": True}]
                ],
                "files": ["table_1.md", "tables/table 1.csv"],
            }
        ],
        "figures": [{"title": f"Figure {n}", "caption": "", "svg": SVG.format(n * 10), "files": []} for n in (1, 2)],
        "runs": [
            {
                "name": "guide",
                "kind": "train",
                "recipe": "steps: 9\n",
                "metrics": {
                    "accuracy/plain": {"x": [0, 1, 2, 40], "y": [0.0, 0.5, 1.0, 0.25]},
                    "accuracy/guided": {"x": [0, 1], "y": [0.0, 1.0]},
                    "loss": {"x": [0, 1, 2], "y": [3.0, float("nan"), 1.0]},
                },
            },
            {
                "name": "grpo",
                "kind": "train",
                "recipe": "steps: 9\n",
                "metrics": {"accuracy/plain": {"x": [0, 2], "y": [0.1, 0.2]}},
            },
        ],
        "metric_help": {"accuracy/plain": "share of plain rollouts that are correct", "loss": "the loss"},
        "problems": [
            {
                "run": 1 if n == 3 else 0,
                "set": "held-out" if name == "evaluated" else "train",
                "id": name,
                "question": f"What is question {n}?",
                "answer": f"answer-{n}",
                "guidance": "Think of a square." if n == 0 else None,
                "stratum": "hard" if n < 3 else "easy",
            }
            for n, name in enumerate(ids)
        ],
        "rollouts": {name: [row[name] for row in rows] for name in rows[0]},
    }


def hostile() -> dict[str, Any]:
    """The sample with the hostile text behind every text in it."""

    def spoilt(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item if key in ("svg", "kind") else spoilt(item) for key, item in value.items()}
        if isinstance(value, list):
            return [spoilt(item) for item in value]
        return f"{value} {HOSTILE}" if isinstance(value, str) else value

    data = sample()
    keys = {
        "metrics": lambda run: run["metrics"].update(
            {HOSTILE: {"x": [1, 2], "y": [1, 2]}, "__proto__": {"x": [1], "y": [1]}}
        )
    }
    for run in data["runs"]:
        keys["metrics"](run)
    return spoilt(data)


def blocks(text: str) -> dict[str, Any]:
    """What the blocks of a page hold."""
    found = re.findall(r'<script type="application/gzip" id="([\w-]+)">([^<]*)</script>', text)
    return {name: json.loads(gzip.decompress(base64.b64decode(packed))) for name, packed in found}


# --- the file


def test_the_page_is_one_file_without_addresses_and_its_policy_allows_none(tmp_path):
    write_page(tmp_path / "index.html", sample())
    text = (tmp_path / "index.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert not re.search(
        r"""(src|href)\s*=\s*["']|@import|url\(""", re.sub(r"<script.*?</script>", "", text, flags=re.S)
    )
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "default-src 'none'" in text
    assert "unsafe" not in text


def test_the_same_data_gives_the_same_bytes_and_is_left_as_it_was():
    data = sample()
    before = copy.deepcopy(data)
    text = page_html(data)
    assert text == page_html(sample())
    headers = re.findall(r'<script type="application/gzip" id="[\w-]+">(.{10})', text)
    assert set(headers) == {base64.b64encode(b"\x1f\x8b\x08" + bytes(6)).decode()[:10]}  # no time of day
    assert json.dumps(data) == json.dumps(before)


def test_hostile_text_reaches_only_the_title_and_there_it_is_escaped():
    outside = re.sub(r'(<script type="application/gzip" id="[\w-]+">)[A-Za-z0-9+/=]*', r"\1", page_html(hostile()))
    calm = re.sub(r'(<script type="application/gzip" id="[\w-]+">)[A-Za-z0-9+/=]*', r"\1", page_html(sample()))
    for title in re.findall(r"(?:<title>|<h1[^>]*>)(.*?)</", outside, flags=re.S):
        assert "<" not in title
        outside = outside.replace(title, "A report")
    assert outside == calm


def test_hostile_text_can_be_written_and_read_back(tmp_path):
    write_page(tmp_path / "index.html", hostile())
    held = blocks((tmp_path / "index.html").read_text())
    assert held["main"]["summary"] == [f"Two runs were compared. {HOSTILE}"]
    assert held["texts-0"]["text"][0].endswith(HOSTILE)


def test_numbers_that_json_cannot_hold_are_missing_and_missing_texts_are_empty():
    data = sample()
    data["rollouts"]["ratios"][3][0] = float("inf")
    data["rollouts"]["text"][0] = None
    held = blocks(page_html(data))
    assert held["main"]["runs"][0]["metrics"]["loss"]["y"] == [3.0, None, 1.0]
    assert held["tokens-0"]["ratios"][3][0] is None
    assert held["texts-0"]["text"][0] == ""


def test_rollouts_are_packed_in_the_order_of_their_problems_and_no_problem_is_in_two_blocks():
    data = sample()
    half = BLOCK_CHARACTERS // 2 + 1
    rows = [
        rollout(problem, 1, 0, index=index, text=f"{problem}{index}" + "x" * half)
        for index in (0, 1, 2)
        for problem in (1, 0, 2)
    ]
    data["rollouts"] = {name: [row[name] for row in rows] for name in rows[0]}
    held = blocks(page_html(data))
    assert held["main"]["rollouts"]["problem"] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert held["main"]["rollouts"]["index"] == [0, 1, 2] * 3
    assert held["main"]["cuts"] == [0, 3, 6, 9]
    assert [[text[:2] for text in held[f"texts-{block}"]["text"]] for block in range(3)] == [
        [f"{problem}{index}" for index in range(3)] for problem in range(3)
    ]
    assert "text" not in held["main"]["rollouts"]


def test_columns_that_do_not_fit_are_named():
    data = sample()
    data["rollouts"]["verdict"].pop()
    with pytest.raises(ValueError, match="column 'verdict' has"):
        page_html(data)
    data = sample()
    data["rollouts"]["problem"][0] = len(data["problems"])
    with pytest.raises(ValueError, match=r"problem 305 is not an index into the 305 problems"):
        page_html(data)


def test_scripts_and_styles_cannot_end_their_elements():
    for path in PARTS.glob("*"):
        if path.suffix in (".js", ".css"):
            assert not re.search(r"</script|</style|<!--", path.read_text(), re.I), path.name


# --- the page in a browser

in_browser = pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}")
SHAPES = {
    "desk": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}},
}


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    write_page(path, sample())
    return path


@pytest.fixture
def open_page(browser, report):
    """Opens the report (or another file); at the end the page must have asked for nothing and complained about nothing."""
    opened = []

    def opener(fragment: str = "", path: Path = report, **options: Any):
        context = visit(browser, path, fragment, **options)
        seen = context.__enter__()
        opened.append((context, seen, path))
        seen.page.wait_for_selector("body[data-texts=read]", state="attached")
        return seen.page

    yield opener
    for context, seen, path in opened:
        asked = {address.split("#")[0] for address in seen.requests if not address.startswith("data:")}
        complaints = list(seen.complaints)
        context.__exit__(None, None, None)
        assert asked == {path.resolve().as_uri()}
        assert not complaints


def names(page: Any) -> list[str]:
    """The problems in the document's rows."""
    return page.locator("#rows .name").all_inner_texts()


def chosen(page: Any) -> str:
    return page.locator("#detail h2").inner_text()


@pytest.mark.e2e
@in_browser
class TestResults:
    def test_summary_notes_and_tables_show_with_the_best_in_bold_and_links_beside(self, open_page):
        page = open_page()
        assert page.title() == "A report"
        assert page.locator(".summary").inner_text() == "Two runs were compared."
        assert "one line was skipped" in page.locator(".notes").inner_text()
        assert page.locator("table strong").all_inner_texts() == ["20.0"]
        links = page.locator(".files a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
        assert links == ["./table_1.md", "./tables/table%201.csv"]

    def test_figures_with_the_same_ids_do_not_clash(self, open_page):
        page = open_page()
        widths = "images => Promise.all(images.map(async (image) => (await image.decode(), image.naturalWidth)))"
        assert page.locator(".figure img").evaluate_all(widths) == [40, 40]
        assert page.evaluate("document.querySelectorAll('#p').length") == 0

    def test_tabs_go_by_click_and_by_keys(self, open_page):
        page = open_page()
        shown = lambda: page.locator("[role=tabpanel]:visible").get_attribute("id")  # noqa: E731
        page.get_by_role("tab", name="Curves").click()
        assert shown() == "view-curves"
        page.keyboard.press("ArrowRight")
        assert shown() == "view-rollouts"
        page.keyboard.press("1")
        assert shown() == "view-results"

    def test_rollouts_that_were_unpacked_before_their_tab_was_opened_are_there(self, open_page):
        page = open_page()
        page.wait_for_timeout(300)
        page.get_by_role("tab", name="Rollouts").click()
        page.wait_for_selector("#detail article.rollout")


@pytest.mark.e2e
@in_browser
class TestCurves:
    def test_metrics_are_grouped_by_the_part_before_the_slash(self, open_page):
        page = open_page("#view=curves")
        assert page.locator(".charts h2").all_inner_texts() == ["accuracy", "other"]
        assert page.locator(".chart h3").all_inner_texts() == ["accuracy/guided", "accuracy/plain", "loss"]
        assert "share of plain rollouts" in page.locator(".chart").nth(1).inner_text()

    def test_the_legend_hides_a_run_by_click_and_by_key(self, open_page):
        page = open_page("#view=curves")
        lines = page.locator(".chart").nth(1).locator(".line")
        button = page.get_by_role("button", name="grpo")
        assert lines.count() == 2
        button.click()
        assert lines.count() == 1
        assert button.get_attribute("aria-pressed") == "false"
        button.press("Enter")
        assert lines.count() == 2

    def test_pointing_reads_the_values_at_the_nearest_step(self, open_page):
        page = open_page("#view=curves")
        plot = page.locator(".plot").nth(1)
        box = plot.bounding_box()
        plot.hover(position={"x": box["width"] * 0.97, "y": 40})
        reading = page.locator(".chart").nth(1).locator(".reading")
        assert reading.inner_text().split() == ["step", "40", "guide", "0.25"]
        plot.focus()
        for _ in range(3):
            page.keyboard.press("ArrowLeft")
        assert reading.inner_text().split() == ["step", "0", "guide", "0", "grpo", "0.1"]

    def test_smoothing_is_the_mean_of_the_last_steps(self, open_page):
        page = open_page("#view=curves")
        page.locator("#smoothing").fill("2")
        plot = page.locator(".plot").nth(1)
        plot.focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert page.locator(".reading:visible").inner_text().split() == ["step", "2", "guide", "0.75", "grpo", "0.2"]
        assert page.locator(".smoothing output").inner_text() == "mean of 2 steps"

    def test_a_missing_value_leaves_a_gap(self, open_page):
        page = open_page("#view=curves")
        page.locator("#smoothing").fill("1")
        line = page.locator(".chart").nth(2).locator(".line path[fill=none]").first.get_attribute("d")
        assert line.count("M") == 2

    def test_words_filter_the_metrics(self, open_page):
        page = open_page("#view=curves")
        page.locator("#metric-filter").fill("LOSS")
        assert page.locator(".chart h3:visible").all_inner_texts() == ["loss"]
        assert page.locator(".charts h2:visible").all_inner_texts() == ["other"]
        page.locator("#metric-filter").fill("no such metric")
        assert page.get_by_text("No metric has these words").is_visible()

    def test_help_of_a_metric_comes_from_its_key_the_key_that_it_extends_or_a_pattern(self, open_page):
        page = open_page()
        help_lines = {"grades/<verdict>": "verdicts", "evaluation/pass@1": "greedy", "evaluation/pass@k": "unbiased"}
        asked = ["grades/a-b", "evaluation/pass@1/hard", "evaluation/pass@16/hard", "evaluation/pass", "toString"]
        found = page.evaluate("([keys, help]) => keys.map((key) => helpFor(key, help))", [asked, help_lines])
        assert found == ["verdicts", "greedy", "unbiased", "", ""]

    def test_axis_ticks_are_round_and_inside(self, open_page):
        page = open_page()
        assert page.evaluate("ticks(0, 1, 4)") == [0, 0.25, 0.5, 0.75, 1]
        assert page.evaluate("ticks(-0.013, 0.012, 4)") == [-0.01, 0, 0.01]
        assert page.evaluate("ticks(0, 400, 5)") == [0, 100, 200, 300, 400]


@pytest.mark.e2e
@in_browser
class TestRollouts:
    def test_filters_list_their_problems_and_say_how_many(self, open_page):
        page = open_page("#view=rollouts")
        expected = {
            "rescued": ["rescued"],
            "never": ["never"],
            "uniform": ["never"],
            "regression": ["regressed"],
        }
        for key, listed in expected.items():
            chip = page.locator(f"[data-filter={key}]")
            chip.click()
            assert names(page) == listed, key
            assert chip.locator(".count").inner_text() == str(len(listed))
            assert chip.get_attribute("aria-pressed") == "true"
        counts = {key: page.locator(f"[data-filter={key}] .count").inner_text() for key in ("all", "solved")}
        assert counts == {"all": "305", "solved": "303"}

    def test_run_set_and_stratum_narrow_the_list_and_the_counts(self, open_page):
        page = open_page("#view=rollouts")
        page.locator("#facet-stratum").select_option("hard")
        assert names(page) == ["rescued", "never", "regressed"]
        assert page.locator("[data-filter=all] .count").inner_text() == "3"
        assert page.locator("#facet-run option").all_inner_texts() == ["All runs", "guide (3)", "grpo (0)"]
        assert page.locator("#facet-stratum option").all_inner_texts() == ["All strata", "hard (3)", "easy (302)"]
        page.locator("#facet-stratum").select_option("")
        page.locator("#facet-run").select_option("grpo")
        assert names(page) == ["solved"]
        page.locator("#facet-run").select_option("")
        page.locator("#facet-set").select_option("held-out")
        assert names(page) == ["evaluated"]

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("QUESTION 2?", ["regressed"]),
            ("ANSWER-303", ["filler-298"]),
            ("of a square", ["rescued"]),
            ("plain words of a failure", ["rescued"]),
            ("problem 2 at 9", ["regressed"]),
            ("nowhere", []),
        ],
    )
    def test_search_reads_question_answer_guidance_and_rollouts(self, open_page, words, found):
        page = open_page("#view=rollouts")
        page.keyboard.press("/")
        page.keyboard.type(words)
        assert names(page) == found
        assert page.locator("#found").inner_text() == f"{len(found)} of 305 problems"

    def test_more_and_other_words_are_searched_for_in_all_problems_that_may_have_them(self, open_page):
        page = open_page("#view=rollouts")
        for words, listed in (
            ("question 30", 6),
            ("question 303", 1),
            ("question 29", 11),
            ("", 305),
            ("question 1?", 1),
        ):
            page.locator("#search").fill(words)
            assert page.locator("#found").inner_text() == f"{listed} of 305 problems"

    def test_what_was_searched_for_is_marked_in_texts_and_tokens_at_its_step(self, open_page):
        page = open_page("#view=rollouts&q=words of&show=rescued")
        assert page.locator("#detail mark").all_inner_texts() == ["words of"]
        page = open_page("#view=rollouts&q=HE%0Aanswer")
        assert page.locator(".tokens .found").all_text_contents() == [" the", "\nanswer"]
        page = open_page("#view=rollouts&q=problem 0 at 7")
        assert page.locator(".now b").inner_text() == "step 7"

    def test_a_long_text_is_whole_where_the_search_finds_something_in_its_middle(self, open_page):
        page = open_page("#view=rollouts&q=middle middle")
        assert page.locator(".group.plain [data-index='1'] .text").text_content() == LONG

    def test_keys_go_through_problems_and_steps(self, open_page):
        page = open_page("#view=rollouts")
        now = page.locator(".now b")
        assert (chosen(page), now.inner_text()) == ("rescued", "step 3")
        page.keyboard.press("]")
        assert now.inner_text() == "step 7"
        page.keyboard.press("]")
        page.keyboard.press("[")
        assert now.inner_text() == "step 3"
        for key, name in (
            ("j", "never"),
            ("ArrowDown", "regressed"),
            ("k", "never"),
            ("ArrowUp", "rescued"),
            ("k", "rescued"),
        ):
            page.keyboard.press(key)
            assert chosen(page) == name
            assert page.locator("#rows [aria-selected=true] .name").inner_text() == name

    def test_keys_in_the_search_are_words_and_escape_leaves_it(self, open_page):
        page = open_page("#view=rollouts")
        page.keyboard.press("/")
        page.keyboard.type("j?")
        assert page.locator("#search").input_value() == "j?"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement === document.body")
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        page.keyboard.press("Escape")
        assert not page.locator("#help").is_visible()

    def test_only_rows_in_sight_are_in_the_document(self, open_page):
        page = open_page("#view=rollouts")
        assert len(names(page)) < 40
        page.locator("#rows").evaluate("rows => { rows.scrollTop = rows.scrollHeight }")
        page.locator("#rows .name", has_text="filler-299").click()
        assert chosen(page) == "filler-299"
        assert len(names(page)) < 40

    def test_plain_and_guided_rollouts_stand_side_by_side_with_what_they_got(self, open_page):
        page = open_page("#view=rollouts")
        plain, guided = page.locator(".group.plain"), page.locator(".group.guided")
        assert plain.locator("h3").inner_text() == "Plain 0 of 2 correct"
        assert guided.locator("h3").inner_text() == "Guided 1 of 2 correct"
        assert plain.bounding_box()["y"] == guided.bounding_box()["y"]
        assert plain.bounding_box()["x"] < guided.bounding_box()["x"]
        header = guided.locator("[data-index='1'] header").inner_text()
        assert header.split() == [
            "#1",
            "✓",
            "correct",
            "reward",
            "1",
            "advantage",
            "1.5",
            "finish",
            "stop",
            "tokens",
            "12",
        ]
        assert "✗ truncated" in plain.locator("[data-index='1'] header").inner_text()
        assert page.locator(".guidance").inner_text().endswith("Think of a square.")

    def test_the_history_has_a_cell_for_each_step_that_selects_it(self, open_page):
        page = open_page("#view=rollouts")
        cells = page.locator(".cell")
        labels = [cell.get_attribute("aria-label") for cell in cells.all()]
        assert labels == [
            "step 3: rescued: only guided rollouts correct; plain 0 of 2 correct, guided 1 of 2 correct",
            "step 7: solved; plain 1 of 2 correct",
        ]
        assert [cells.nth(n).locator(".sign").inner_text() for n in range(2)] == ["▲", ""]
        cells.nth(1).click()
        assert page.locator(".now b").inner_text() == "step 7"
        page.keyboard.press("ArrowLeft")
        assert page.locator(".now b").inner_text() == "step 3"
        assert page.evaluate("document.activeElement.dataset.step") == "step 3"

    def test_models_of_an_evaluation_have_a_line_each(self, open_page):
        page = open_page("#view=rollouts&set=held-out")
        assert page.locator(".track .model").all_inner_texts() == ["base", "tuned"]
        assert page.locator(".now b").inner_text() == "tuned, step 10"
        assert page.locator(".rollout .tag").all_inner_texts() == ["greedy", "greedy"]

    def test_tokens_are_shaded_by_the_logarithm_of_their_ratios(self, open_page):
        page = open_page("#view=rollouts")
        tokens = page.locator(".text.tokens span")
        assert tokens.all_text_contents() == ["So", " the", "\nanswer", " 4", "<eos>"]
        looks = [
            (token.get_attribute("class"), token.evaluate("node => node.style.getPropertyValue('--depth')"))
            for token in tokens.all()
        ]
        assert [kind for kind, _ in looks] == ["high", "low", "low", "high above", "unknown"]
        depths = [int(depth.rstrip("%") or 0) for _, depth in looks]
        assert depths[0] == 0
        assert depths[1] == 100
        assert depths[2] < depths[3] < 100
        assert depths[4] == 0
        tokens.nth(1).hover()
        reading = page.locator(".token-reading")
        assert reading.inner_text() == "token 2 of 5  the ratio 0.001"
        page.locator(".text.tokens").focus()
        page.keyboard.press("ArrowRight")
        assert reading.inner_text() == "token 3 of 5 ⏎answer ratio 0.5"
        page.locator("#shading").uncheck()
        assert page.locator(".text.tokens").count() == 0
        assert "So the\nanswer 4" in page.locator(".group.guided").inner_text()

    def test_a_long_text_is_shown_whole_on_request(self, open_page):
        page = open_page("#view=rollouts")
        text = page.locator(".group.plain [data-index='1'] .text")
        assert text.inner_text().startswith("begin")
        assert text.inner_text().endswith("end")
        assert len(text.inner_text()) < 1100
        page.get_by_text("show all 2,809 characters").click()
        assert text.text_content() == LONG

    def test_a_long_text_is_not_cut_within_a_character(self, open_page):
        page = open_page()
        for start in range(2):
            cut = page.evaluate(
                "start => shortened('x'.repeat(start) + '\\u{1d50a}'.repeat(900), '').textContent", start
            )
            assert "U+" not in cut
            assert "show all" in cut

    def test_another_step_leaves_the_place_to_which_one_had_scrolled(self, open_page):
        page = open_page("#view=rollouts&show=regression", viewport={"width": 1280, "height": 300})
        page.evaluate(SLOW_BLOCKS)
        page.locator("#detail").evaluate("detail => { detail.scrollTop = 200 }")
        page.keyboard.press("[")
        page.locator(".group h3", has_text="2 of 3 correct").wait_for()
        assert page.locator("#detail").evaluate("detail => detail.scrollTop") == 200

    def test_a_watched_page_loads_itself_anew_but_not_under_a_readers_hands(self, open_page, tmp_path):
        write_page(tmp_path / "index.html", sample() | {"reload_s": 0.5})
        page = open_page("#view=curves", path=tmp_path / "index.html")
        page.evaluate("window.before = true")
        for _ in range(4):
            page.keyboard.press("?")
            page.wait_for_timeout(200)
        assert page.evaluate("window.before")
        with page.expect_navigation(timeout=5000):
            pass
        page.wait_for_selector("body[data-texts=read]", state="attached")
        assert not page.evaluate("window.before")
        assert page.evaluate("document.body.dataset.view") == "curves"

    def test_a_link_restores_the_view_the_filter_the_problem_and_the_step(self, open_page):
        page = open_page("#view=rollouts")
        page.locator("[data-filter=solved]").click()
        page.locator("#facet-stratum").select_option("easy")
        page.locator("#search").fill("question 30")
        page.locator("#rows .name", has_text="filler-295").click()
        page.wait_for_timeout(300)
        link = page.evaluate("location.hash")
        again = open_page(link)
        assert chosen(again) == "filler-295"
        assert names(again) == names(page)
        assert again.locator("#facet-stratum").input_value() == "easy"
        assert again.locator("#search").input_value() == "question 30"
        assert again.locator("[data-filter=solved]").get_attribute("aria-pressed") == "true"
        at = open_page("#view=rollouts&in=guide&of=train&problem=rescued&at=step+7")
        assert at.locator(".now b").inner_text() == "step 7"
        at.evaluate("location.hash = '#view=rollouts&in=guide&of=train&problem=never&at=step+1'")
        at.locator("#detail h2", has_text="never").wait_for()
        assert at.locator(".now b").inner_text() == "step 1"

    def test_a_link_to_what_is_not_there_opens_the_page(self, open_page):
        page = open_page("#view=x&show=y&run=z&in=a&of=b&problem=c&at=d")
        assert page.locator("#view-results").is_visible()

    def test_a_report_without_runs_opens(self, open_page, tmp_path):
        empty = {name: [] for name in ("summary", "notes", "tables", "figures", "runs", "problems")}
        write_page(tmp_path / "empty.html", {"title": "", "made": "", "metric_help": {}, "rollouts": {}, **empty})
        page = open_page("#view=rollouts", tmp_path / "empty.html")
        assert page.locator("#found").inner_text() == "0 of 0 problems"
        page.keyboard.press("2")
        assert page.get_by_text("No run here has metrics").is_visible()


@pytest.mark.e2e
@in_browser
class TestSafety:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_hostile_text_is_shown_and_never_obeyed(self, open_page, tmp_path, shape):
        write_page(tmp_path / "hostile.html", hostile())
        page = open_page("", tmp_path / "hostile.html", **SHAPES[shape])
        for view in ("Results", "Curves", "Rollouts"):
            page.get_by_role("tab", name=view).click()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        for _ in range(3):
            page.keyboard.press("j")
            page.keyboard.press("[")
        page.locator("[data-filter=rescued]").click()
        page.locator("#rows [role=option]").click()
        page.locator("#facet-run").select_option(index=1)
        assert page.locator("#rows [role=option]").count() == 1
        shown = page.locator("#detail").inner_text()
        for text in (
            "</script><script>window.hacked = 1</script>",
            "<img src=x onerror=",
            "⟨U+2028⟩",
            "⟨U+D800⟩",
            "␀",
            "⟨U+202E⟩abc",
        ):
            assert text in shown
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img").count() == 2
        assert page.evaluate("document.querySelectorAll('script').length") <= 3  # its own, and tokens not unpacked yet

    def test_the_policy_stops_a_script_that_gets_in_anyway(self, browser, report):
        with visit(browser, report) as seen:
            seen.page.wait_for_selector("body[data-texts=read]", state="attached")
            markup = "<img src='data:,' onerror='window.hacked = 1'><img src='https://example.com/x.png'>"
            seen.page.evaluate("markup => { document.body.insertAdjacentHTML('beforeend', markup) }", markup)
            seen.page.wait_for_timeout(200)
            assert seen.page.evaluate("window.hacked") is None
            assert any("Content Security Policy" in text for text in seen.complaints)

    def test_a_browser_that_cannot_unpack_says_so(self, browser, report):
        with visit(browser, report, script="delete window.DecompressionStream") as seen:
            assert "no DecompressionStream" in seen.page.get_by_role("alert").inner_text()

    def test_a_file_that_is_not_whole_says_so(self, browser, report, tmp_path):
        text = report.read_text()
        start = text.index('id="main">') + 500
        (tmp_path / "broken.html").write_text(text[:start] + text[start + 400 :])
        with visit(browser, tmp_path / "broken.html") as seen:
            assert "could not be shown whole" in seen.page.get_by_role("alert").inner_text()


@pytest.mark.e2e
@in_browser
@pytest.mark.parametrize("shape", SHAPES)
def test_the_page_fits_its_window_in_every_view(open_page, tmp_path, shape):
    page = open_page(**SHAPES[shape])
    for view in ("results", "curves", "rollouts"):
        page.locator(f"#tab-{view}").click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        page.screenshot(path=tmp_path / f"{view}.png")
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
    assert (brightness < 60) == (shape == "dark")
