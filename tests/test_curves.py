"""What the picture of the training curves shows."""

import pytest

from guide_rl.analysis.curves import TRAINING_PANELS, curves_figure


def rows(share):
    """A run of 3 steps with an evaluation after each, all shares the same."""
    made = []
    for step in (1, 2, 3):
        values = {panel.key: share if panel.top else 5.0 for panel in TRAINING_PANELS}
        evaluations = {key: value for key, value in values.items() if key.startswith("evaluation/")}
        made.append({"step": step, "total/rollouts": 100 * step, **values})
        made[-1] = {key: value for key, value in made[-1].items() if key not in evaluations}
        made.append({"step": step, **evaluations})
    return made


@pytest.fixture
def figure():
    return curves_figure({"never": rows(0.0), "always": rows(1.0), "not started": []}, title="two runs")


def test_shares_have_an_axis_from_0_to_1_and_the_rest_one_from_0(figure):
    limits = {panel.key: axis.get_ylim() for panel, axis in zip(TRAINING_PANELS, figure.axes, strict=True)}
    assert all(limits[panel.key] == (0, 1) for panel in TRAINING_PANELS if panel.unit.startswith("share"))
    assert limits["length"][0] == 0
    assert limits["length"][1] > 5
    assert {axis.get_xlim()[0] for axis in figure.axes} == {0}


def test_lines_at_the_limits_are_drawn_whole(figure):
    assert not any(line.get_clip_on() for axis in figure.axes for line in axis.lines)


def test_lines_that_coincide_all_show_by_their_widths():
    axis = curves_figure({name: rows(0.5) for name in "abcd"}, title="").axes[0]
    widths = [line.get_linewidth() for line in axis.lines]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 4


def test_the_picture_has_a_title_one_legend_entry_a_run_and_says_what_faint_lines_are(figure):
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["never", "always", "not started"]
    assert "Faint" in legend.get_title().get_text()
    assert figure.get_suptitle() == "two runs"


def test_title_legend_and_panels_do_not_overlap(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    panels = [axis.get_tightbbox() for axis in figure.axes]
    boxes = [*panels, figure.legends[0].get_window_extent(), figure._suptitle.get_window_extent()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
