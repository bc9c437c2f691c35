"""What a plot of a study shows: every setting has its place, words and null included."""

from typing import Any

import pytest

from scalefp.studies.plot import make_scale, plot

pytest.importorskip("matplotlib")


def row(setting: dict[str, Any], **means: float) -> dict[str, Any]:
    figures = {
        name: {"mean": mean, "ci95": [mean - 0.1, mean + 0.1], "jobs": 2}
        for name, mean in means.items()
    }
    return {"setting": setting, "figures": figures}


def report(rows: list[dict[str, Any]], metrics: list[str]) -> dict[str, Any]:
    return {
        "folder": "sweep", "question": "What?", "settings": list(rows[0]["setting"]),
        "rows": rows, "metrics": metrics, "published": {},
    }  # fmt: skip


def test_null_stands_beyond_the_largest_number_by_as_much_as_that_beyond_the_next() -> None:
    rows = [row({"keys": keys}) for keys in (10, 100, 1000, None)]
    scale = make_scale(rows, "keys")
    assert scale.logarithmic and not scale.named
    assert scale.places == {"10": 10, "100": 100, "1000": 1000, "null": 10_000}
    even = make_scale([row({"x": x}) for x in (None, 1, 2, 4)], "x")
    assert not even.logarithmic and even.places["null"] == 6
    assert make_scale([row({"x": x}) for x in (None, 3)], "x").places["null"] == 4


def test_seen_and_unseen_keys_share_a_panel_and_each_point_is_at_its_place() -> None:
    rows = [
        row({"keys": 10}, trained_bit_accuracy=1.0, unseen_bit_accuracy=0.6, unseen_psnr=20),
        row({"keys": None}, unseen_bit_accuracy=0.9, unseen_psnr=24),
    ]
    figure = plot(report(rows, ["trained_bit_accuracy", "unseen_bit_accuracy", "unseen_psnr"]))
    assert figure is not None
    both, psnr = figure.axes
    assert (both.get_title(), psnr.get_title()) == ("bit accuracy", "PSNR in dB")
    labels = [text.get_text() for text in both.get_legend().get_texts()]
    assert labels == ["keys of the training", "keys never seen"] and psnr.get_legend() is None
    trained, unseen = (container.lines[0].get_xydata().tolist() for container in both.containers)
    assert trained == [[10, 1.0]] and unseen == [[10, 0.6], [11, 0.9]]
    assert [text.get_text() for text in both.get_xticklabels()] == ["10", "null"]


def test_words_are_named_at_the_side_and_lead_to_their_points() -> None:
    rows = [row({"part": name}, psnr=at) for at, name in enumerate(("first", "second", "third"))]
    figure = plot(report(rows, ["psnr"]))
    assert figure is not None
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["first", "second", "third"]
    line, _, (bars,) = axes.containers[0]
    assert line.get_xydata().tolist() == [[0, 0], [1, 1], [2, 2]] and line.get_linestyle() == "None"
    ends = [end for segment in bars.get_segments() for end, _ in segment]
    assert ends == pytest.approx([-0.1, 0.1, 0.9, 1.1, 1.9, 2.1])
    assert axes.yaxis_inverted()


def test_nothing_is_drawn_of_no_figures_or_of_one_setting() -> None:
    assert plot(report([{"setting": {"x": 1}, "figures": {}}], ["psnr"])) is None
    assert plot(report([row({}, psnr=1)], ["psnr"])) is None


def test_names_too_long_for_a_panel_stand_below_all_of_them_once() -> None:
    long = "a setting of which the name is rather long"
    rows = [row({"x": x, long: word}, psnr=x, ssim=x / 9) for x in (1, 2) for word in ("a", "b")]
    figure = plot(report(rows, ["psnr", "ssim"]))
    assert figure is not None
    assert all(axes.get_legend() is None for axes in figure.axes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"{long}=a", f"{long}=b"]
