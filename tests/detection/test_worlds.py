from scalefp.detection.worlds import world_figures


def test_worlds_of_attribution() -> None:
    found = world_figures(
        own=["a", "b", "", "a"], truth=["a", "b", "b", "b"], clean=["", "", "", "a"],
        stranger=["", "b", "", ""],
    )  # fmt: skip
    assert found["attribution"]["closed"]["accuracy"] == 0.5
    assert found["detection"]["closed"]["accuracy"] == 6 / 8
    assert found["attribution"]["open"]["accuracy"] == (2 + 2 + 1) / 8
    assert found["wrongly_named"] == 3
