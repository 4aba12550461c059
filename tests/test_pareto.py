"""The picture of several scores: who is on the front, and where points lie."""

from __future__ import annotations

from xml.etree import ElementTree

from pareto import Axis, Value, figure, front, picture

AXES = [
    Axis("PSNR", "higher"),
    Axis("distance", "lower"),
    Axis("gap & more", "higher"),
]
SHARP = (30, 9, 0.1)
FAIR = (20, 3, 0.1)
CLEAR = (20, 9, 0.4)
BEATEN = (19, 9, 0.1)


def point(row: tuple[float | None, ...]) -> list[Value | None]:
    return [None if one is None else Value(one, 0.1) for one in row]


def test_the_front_is_who_nobody_beats_on_all_axes() -> None:
    known = {
        "sharp": point(SHARP),
        "fair": point(FAIR),
        "clear": point(CLEAR),
        "beaten": point(BEATEN),
    }
    assert front(known, AXES) == {"sharp", "fair", "clear"}
    equal = {
        "one": point(FAIR),
        "other": point(FAIR),
    }
    assert front(equal, AXES) == {"one", "other"}


def test_who_has_no_value_on_an_axis_may_be_on_the_front_by_the_others() -> None:
    known = {
        "whole": point(FAIR),
        "sharp": point((30, 9, None)),
        "behind": point((20, 3, None)),
    }
    assert front(known, AXES) == {"whole", "sharp"}
    drawn = picture(known, AXES)
    assert drawn.count(">sharp</text>") == 1


def test_better_values_lie_to_the_right_and_above() -> None:
    known = {"worse": point((20, 9, 0.1)), "better": point((30, 3, 0.4))}
    for panel in figure(known, AXES).axes:
        names = {one.get_text(): one for one in panel.texts}
        worse = panel.transData.transform(names["worse"].xy)
        assert (panel.transData.transform(names["better"].xy) > worse).all()


def test_the_picture_has_a_panel_for_each_further_axis_and_every_name() -> None:
    known = {
        "a": point(SHARP),
        "b": point(FAIR),
    }
    drawn = picture(known, AXES)
    ElementTree.fromstring(drawn)
    assert len(figure(known, AXES).axes) == 2
    assert drawn.count(">a</text>") == 2
    assert "gap &amp; more" in drawn
    assert drawn == picture(known, AXES)
