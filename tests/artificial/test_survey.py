"""Before marking: names in the marked set, where it may go, images that the marker cannot take."""

import zipfile
from io import BytesIO

import pytest
from PIL import Image

from scalefp.artificial.survey import check_out, survey
from scalefp.data.source import Source
from scalefp.errors import UserError


def picture(size=(32, 32), kind="PNG"):
    stream = BytesIO()
    Image.new("RGB", size).save(stream, kind)
    return stream.getvalue()


def opened(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return Source(path)


# Names.


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.jpg", "a.png"], "a.jpg and a.png would both become a.png"),
        (["b/a.png", "b/a.png"], "b/a.png and b/a.png"),
        (["/etc/passwd.png"], "'/etc/passwd.png' is not a name"),
        (["a//b.png"], "is not a name"),
    ],
)
def test_names_that_the_marked_set_cannot_have(tmp_path, names, words):
    files = [(name, picture(kind="JPEG" if "jpg" in name else "PNG")) for name in names]
    with opened(tmp_path / "z.zip", files) as entries, pytest.raises(UserError, match=words):
        survey(entries, 32, workers=1, progress=False)


def test_a_path_out_of_the_zip_is_never_an_image(tmp_path):
    files = [("../../out.png", picture()), ("a.png", picture())]
    with opened(tmp_path / "z.zip", files) as entries:
        assert entries.names == ["a.png"]


def test_only_names_of_images_clash(tmp_path):
    files = [("a", b"text"), ("a.jpg", b"text"), ("a.png", picture())]
    with opened(tmp_path / "z.zip", files) as entries:
        reasons = survey(entries, 32, workers=2, progress=False)
    assert [why is None for why in reasons] == [False, False, True]


# Sizes.


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_image_of_another_size_is_named_and_what_to_do(tmp_path, kind, zipped, workers):
    files = [("1", picture()), ("2", picture((48, 32), kind)), ("3", picture((64, 64), kind))]
    path = tmp_path / "set"
    if zipped:
        entries = opened(path, files)
    else:
        path.mkdir()
        for name, content in files:
            (path / name).write_bytes(content)
        entries = Source(path)
    words = r"2 is 48x32, .* 32x32 only.*data prepare .*set --resolution 32"
    with entries, pytest.raises(UserError, match=words):
        survey(entries, 32, workers, progress=False)


def test_what_is_no_image_is_told_by_its_header(tmp_path):
    files = [("a.png", b"x"), ("b.png", picture()), ("c.png", b""), ("d.png", picture()[:20])]
    with opened(tmp_path / "z.zip", files) as entries:
        reasons = survey(entries, 32, workers=1, progress=False)
    assert reasons[1] is None
    for why, name in ((reasons[0], "a.png"), (reasons[2], "c.png"), (reasons[3], "d.png")):
        assert why is not None and name in why


@pytest.mark.parametrize("files", [[], [("a.png", b"x"), ("dataset.json", '{"labels": null}')]])
def test_a_set_without_images(tmp_path, files):
    with opened(tmp_path / "z.zip", files) as entries, pytest.raises(UserError, match="no usable"):
        survey(entries, 32, workers=1, progress=False)


# Where it goes.


def test_nothing_is_overwritten(tmp_path):
    for folder in ("full", "empty", "x.zip"):
        (tmp_path / folder).mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "there.zip").write_text("precious")
    (tmp_path / "earlier.marks.json").write_text("precious")
    for name, words in (
        ("full", "holds other files"),
        ("file", "is a file"),
        ("there.zip", "exists already"),
        ("x.zip", "exists already"),
        ("earlier", "only record of earlier marks"),
    ):
        with pytest.raises(UserError, match=words):
            check_out(tmp_path / name, tmp_path / f"{name}.partial")
    for name in ("empty", "new", "new.zip"):
        check_out(tmp_path / name, tmp_path / f"{name}.partial")


def test_the_record_of_unfinished_work_is_its_own(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.marks.json").write_text("written just before the interruption")
    check_out(tmp_path / "out", tmp_path / "out.partial")
