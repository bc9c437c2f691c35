"""Names of images that are written anew; sources whose names clash: tests/artificial."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalefp.data.renaming import png_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "a.png"),
        ("a/b.PNG", "a/b.PNG"),
        ("a/b.jpg", "a/b.png"),
        ("b.c/a.JPEG", "b.c/a.png"),
        ("a.webp", "a.png"),
        ("a.jpg.webp", "a.jpg.png"),
        ("scan.001", "scan.001.png"),
        ("a.b/plain", "a.b/plain.png"),
    ],
)
def test_names_are_kept_but_for_the_suffix(name, expected):
    assert png_name(name) == expected


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1))
def test_every_name_becomes_that_of_a_png_in_the_same_folder(name):
    marked = png_name(f"folder.x/{name}")
    assert marked.lower().endswith(".png")
    assert marked.startswith("folder.x/")
    assert png_name(marked) == marked
