"""experiments/demo: its judgement, its pictures, its folder; the whole of it on a toy release."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import chart
import demo
import folder
import lifted
import pictures
import report
import scalefp
import verdicts
from scalefp.attribution.evidence import Reading
from scalefp.config import ModelConfig
from scalefp.networks.decoder import Decoder
from scalefp.networks.generator import Generator
from scalefp.release.model import Model, save_release

N_BITS = 64
CONFIG = ModelConfig(
    resolution=16, n_bits=N_BITS, latent_dim=8, channel_base=64, channel_max=8,
    embedding_width=8, decoder_resolution=16, decoder_base=64, decoder_max=8,
)  # fmt: skip
DIGEST = "0" * 64


@pytest.fixture
def registry(tmp_path: Path) -> scalefp.Registry:
    registry = scalefp.Registry(tmp_path / "keys.db")
    release = SimpleNamespace(digest=DIGEST, config=CONFIG)
    registry.issue_many(["alice", "bob", "<carol>"], release)
    return registry


def reading_of(key: scalefp.Key, n_wrong: int = 0, images: int = 1) -> Reading:
    signs = 2.0 * key.bits - 1
    signs[:n_wrong] *= -1
    return Reading(np.tile(signs, (images, 1)), DIGEST)


def group_of(
    registry: scalefp.Registry,
    files: list[Path],
    key: scalefp.Key,
    expected: str | None,
    n_wrong: int = 0,
) -> verdicts.Group:
    reading = reading_of(key, n_wrong, images=len(files))
    return verdicts.Group(
        title=f"from {expected}",
        expected=expected,
        files=files,
        each=[verdicts.judge(one, registry, 1e-6) for one in reading],
        together=verdicts.judge(reading, registry, 1e-6),
    )


@pytest.fixture
def results(registry: scalefp.Registry, tmp_path: Path) -> verdicts.Results:
    torch.manual_seed(0)
    networks = Generator(CONFIG), Decoder(CONFIG)
    model = Model(CONFIG, *networks, training={"images": 1234}, digest=DIGEST)
    plain = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    files = folder.save_images(tmp_path / "images", plain)
    keys = {record.holder: record.key for record in registry.list()}
    stranger = scalefp.Key.from_bits(1 - keys["alice"].bits)
    return verdicts.Results(
        release="toy",
        model=model,
        fpr=1e-6,
        recipients=[
            verdicts.Recipient(holder, key, files[0], seed=1, milliseconds=1.5)
            for holder, key in keys.items()
        ],
        shared=[plain] * 3,
        psnr=30.25,
        groups=[
            group_of(registry, files, keys["<carol>"], "<carol>", n_wrong=2),
            group_of(registry, files, stranger, None),
        ],
        onnx=verdicts.OnnxCheck(tmp_path / "a.onnx", difference=1e-6, tolerance=1e-4),
        decoded=None,
        seconds=12.3,
    )


# Judgement.


def test_a_key_read_with_few_errors_names_its_holder(registry: scalefp.Registry) -> None:
    verdict = verdicts.judge(reading_of(registry.find("bob"), n_wrong=3), registry, fpr=1e-6)
    assert verdict.named == ("bob",) and verdict.answer == "bob"
    assert verdict.issued == registry.find("bob")
    assert verdict.errors.tolist() == [True] * 3 + [False] * (N_BITS - 3)
    exact = 3 * sum([1, 64, 64 * 63 // 2, 64 * 63 * 62 // 6]) / 2**64
    assert verdict.p_value == pytest.approx(exact)


def test_nobody_still_says_which_key_is_closest(registry: scalefp.Registry) -> None:
    verdict = verdicts.judge(reading_of(registry.find("bob"), n_wrong=20), registry, fpr=1e-6)
    assert verdict.named == () and verdict.answer == "nobody"
    assert (verdict.closest, verdict.n_errors) == ("bob", 20)
    assert verdict.p_value > 1e-6


def test_a_group_is_right_only_if_every_image_and_the_set_are(
    registry: scalefp.Registry, tmp_path: Path
) -> None:
    files = [tmp_path / "a.png"] * 3
    bob = registry.find("bob")
    good = group_of(registry, files, bob, "bob")
    assert good.right and good.n_right == 3
    bad = verdicts.judge(reading_of(bob, n_wrong=32), registry, fpr=1e-6)
    mixed = replace(good, each=[*good.each[:2], bad])
    assert mixed.n_right == 2 and not mixed.right
    assert not replace(good, together=bad).right
    assert not replace(good, expected="alice").right and not replace(good, expected=None).right
    assert replace(good, expected=None, each=[bad], together=bad).right


# Pictures.


def test_key_strips_show_bits_and_mark_errors() -> None:
    key = scalefp.Key.from_hex("f0")
    wrong = np.array([True, False] * 4)
    strip = np.asarray(pictures.key_strip(key, wrong))
    expected = [
        (pictures.WRONG_COLOURS if bad else pictures.RIGHT_COLOURS)[bit]
        for bit, bad in zip([1] * 4 + [0] * 4, wrong, strict=True)
    ]
    assert strip.shape == (1, 8, 3) and (strip[0] == expected).all()
    folded = np.asarray(pictures.wrapped(pictures.key_strip(key, wrong), rows=2))
    assert (folded.reshape(8, 3) == expected).all()


def test_difference_is_ten_times_around_grey() -> None:
    first = Image.new("RGB", (2, 2), (100, 100, 0))
    second = Image.new("RGB", (2, 2), (105, 97, 255))
    assert pictures.difference(first, second).getpixel((0, 0)) == (178, 98, 255)


def test_sheet_shows_a_wrong_answer_in_red(results: verdicts.Results) -> None:
    red = np.array([0xC0, 0x14, 0x2C])
    fine = np.asarray(pictures.draw_sheet(results))
    wrong = replace(results, groups=[replace(results.groups[0], expected="bob"), results.groups[1]])
    assert not (fine == red).all(axis=2).any()
    assert (np.asarray(pictures.draw_sheet(wrong)) == red).all(axis=2).any()


def test_synthetic_pictures_are_distinct_and_always_the_same() -> None:
    images = [image.tobytes() for image in demo.synthetic_images(32)]
    assert images == [image.tobytes() for image in demo.synthetic_images(32)]
    assert len(set(images)) == demo.IMAGES


# The report.


class Balance(HTMLParser):
    """Fails on tags that do not close in order; collects what could be fetched."""

    VOID = {"meta", "img", "br", "line"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def training(tmp_path: Path) -> verdicts.Training:
    log = [
        {"images": 100 * i, "bit_accuracy": 0.5 + i / 10, "psnr": 20.0 + i, "images_per_second": 9}
        for i in range(1, 4)
    ]
    picture = tmp_path / "latents-000000300.png"
    Image.new("RGB", (8, 8)).save(picture)
    return verdicts.Training(log=log, grids={"latents": picture}, seconds=5.0)


def test_report_is_whole_and_fetches_nothing(
    results: verdicts.Results, training: verdicts.Training
) -> None:
    page = report.render(results, training)
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert parser.links and all(link.startswith("data:image/") for link in parser.links)
    assert not re.search(r"https?://|url\(|@import|<script|<link", page)
    assert "<carol>" not in page and "&lt;carol&gt;" in page
    assert "$" not in page  # nothing of the template is left
    assert "answered as expected" in page and "1,234 images" in page and "30.2 dB" in page
    assert page.count("<figure>") == 2 * 3 + 2 + 1  # images, curves, grid


def test_report_keeps_all_columns_in_view_on_a_phone(
    results: verdicts.Results, tmp_path: Path
) -> None:
    """A narrow screen shows each row as a list, in which every cell names its column."""
    page = report.render(results, None)
    head, *rows = re.findall("<tr>(.*?)</tr>", page)[:3]
    names = re.findall("<th>(.*?)</th>", head)
    assert rows and len(names) == 7
    for row in rows:
        assert re.findall('<td data-label="(.*?)">', row) == names

    api = pytest.importorskip("playwright.sync_api", reason="pip install 'scalefp[browser]'")
    chromium = shutil.which("chromium") or pytest.skip("Chromium is not installed")
    (tmp_path / "report.html").write_text(page)
    right = "[...document.querySelectorAll('td span')].map(e => e.getBoundingClientRect().right)"
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        phone = browser.new_page(viewport={"width": 390, "height": 800})
        phone.goto((tmp_path / "report.html").as_uri())
        edges = phone.evaluate(right)
        assert phone.evaluate("document.documentElement.scrollWidth") == 390
        browser.close()
    assert len(edges) >= 7 and all(0 < edge <= 390 for edge in edges)


def test_report_marks_digits_read_wrongly(results: verdicts.Results) -> None:
    key = scalefp.Key.from_hex("00ff")
    other = scalefp.Key.from_hex("01ff")
    assert report.key_html(other, key) == '<span class="hex">0<b>1</b>ff</span>'
    assert report.odds(1e-7) == "1 in 10<sup>7</sup>" and report.odds(0.25) == "1 in 4"


def test_report_says_so_if_something_went_wrong(results: verdicts.Results) -> None:
    wrong = replace(results, groups=[replace(results.groups[0], expected="bob")])
    assert "Not everything came out as expected: 0 of 3" in report.render(wrong, None)
    assert "Training runs" not in report.render(wrong, None)


def test_chart_puts_values_between_its_axes() -> None:
    svg = chart.line_chart("t", [(0, 0.5), (50, 0.75), (100, 2.0)], 0.5, 1.0, "{:g}".format)
    drawn = re.search(r'points="([^"]*)"', svg)
    assert drawn is not None
    points = [tuple(map(float, point.split(","))) for point in drawn[1].split()]
    left, right = chart.LEFT, chart.WIDTH - chart.RIGHT
    bottom, top = chart.HEIGHT - chart.BOTTOM, chart.TOP
    middle = ((left + right) / 2, (top + bottom) / 2)
    assert points == [(left, bottom), middle, (right, top)]  # 2.0 is held at the upper edge


# The folder.


def test_only_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "new" / "demo"
    folder.claim(out)
    (out / "images" / "alice").mkdir(parents=True)
    for name in ("images/alice/0000.png", "report.html", "keys.db"):
        (out / name).write_text("old")
    folder.claim(out)
    assert [path.name for path in out.rglob("*")] == [folder.ABOUT]

    (out / "report.html").write_text("old")
    for name in ("thesis.doc", "dave.safetensors", "images/mine/0000.png"):
        foreign = out / name
        foreign.parent.mkdir(parents=True, exist_ok=True)
        foreign.write_text("mine")
        with pytest.raises(scalefp.UserError, match=name):
            folder.claim(out)
        assert foreign.exists() and (out / "report.html").exists()
        foreign.unlink()


def test_folders_that_only_look_like_a_demo_are_refused(tmp_path: Path) -> None:
    lookalike = tmp_path / "lookalike"
    lookalike.mkdir()
    (lookalike / "keys.db").write_text("somebody's registry")
    with pytest.raises(scalefp.UserError, match="not from this demo"):
        folder.claim(lookalike)
    (tmp_path / "link").symlink_to(lookalike)
    with pytest.raises(scalefp.UserError, match="not a folder"):
        folder.claim(tmp_path / "link")
    (lookalike / "keys.db").unlink()
    (lookalike / folder.ABOUT).write_text("")
    (lookalike / "training").symlink_to(tmp_path)
    with pytest.raises(scalefp.UserError, match="training"):
        folder.claim(lookalike)


# All of it, on a release that has learned nothing.


def test_demo_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "has_onnx", lambda: False)  # its export takes longer than all tests
    torch.manual_seed(0)
    release, out = tmp_path / "toy.safetensors", tmp_path / "demo"
    save_release(release, CONFIG, Generator(CONFIG), Decoder(CONFIG), training={})
    status = demo.main(
        ["--out", str(out), "--model", str(release), "--train-images", "0", "--decoder", "none"]
        + ["--no-lifting"]
    )
    printed = capsys.readouterr().out
    assert status == 1 and "NOT OK" in printed  # no image of a recipient can be attributed
    command = f"scalefp serve --model {release} --registry {out / 'keys.db'}"
    assert command in printed.splitlines()[-1] and "http://127.0.0.1:8000" in printed
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    for title in ("a key never issued", "training data", "synthetic pictures"):
        assert re.search(r" ok +nobody +16 of 16 +nobody ", rows[title])
    for title in ("marked data set, PNG files", "marked data set, JPEG 90"):
        assert re.search(r" ok +data-set +16 of 16 +data-set ", rows[title])
    assert re.search(r" ok +nobody +16 of 16 +nobody ", rows["the same, not marked"])
    assert (out / "report.html").stat().st_size > 100_000
    assert len(list(out.rglob("*.png"))) == 8 * demo.IMAGES + 1
    assert len(list(out.rglob("*.jpg"))) == 4 * demo.IMAGES
    assert len(scalefp.Registry(out / "keys.db").list()) == 3


def test_a_picture_of_others_decoder_has_a_section_of_its_own(
    results: verdicts.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the size of a stamp, in which nobody can be named."""
    monkeypatch.setattr(demo, "DECODED_SIDE", 32)
    decoded = demo.judge_decoder(tmp_path, "taef2")
    assert [group.expected for group in decoded.groups] == [*folder.HOLDERS, None]
    assert decoded.groups[-1].right  # the original's picture leads to nobody
    made = [np.asarray(Image.open(file), int) for file in decoded.files]
    assert all(0 < np.abs(other - made[0]).max() < 64 for other in made[1:])
    whole = replace(results, decoded=decoded, groups=[*results.groups, *decoded.groups])
    page = report.render(whole, None)
    made_by = f"--instance {tmp_path}/alice-decoder.safetensors --images {decoded.files[0].parent}"
    assert made_by in page and f"--registry {tmp_path}/photos.db seen" in page
    assert page.count("Each strip shows") == 1 and "5. A decoder that others trained" in page
    assert page.index("leads to nobody") < page.index("alice&#x27;s decoder, JPEG 90</h3>")
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "decoder" in str(path)]
    names = [path.relative_to(tmp_path).as_posix() for path in written]
    assert names and all(folder.OWN_FILES.fullmatch(name) for name in names)


def test_a_fingerprint_laid_on_another_picture_does_not_pass(
    results: verdicts.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a release that has learned nothing, whose decoder names nobody; bound bits need none."""
    torch.manual_seed(1)
    chance = np.random.default_rng(1)
    drawn = classmethod(lambda cls, n: cls.from_bits(chance.integers(0, 2, n)))
    monkeypatch.setattr(scalefp.Key, "random", drawn)
    config = replace(CONFIG, latent_dim=8)
    networks = Generator(config), Decoder(config)
    model = Model(config, *networks, training={}, digest=DIGEST)
    found = lifted.judge_lifted(tmp_path, model, 1e-3, bits=20)
    assert [one.honest for one in found.pictures] == [True, False]
    assert found.right and [one.check.passed for one in found.pictures] == [True, False]
    assert all(
        one.named == () and "names nobody; lift check" in one.answer for one in found.pictures
    )
    assert found.lines[0].startswith("alice's own picture: ") and found.lines[0].endswith(": ok")
    assert "lift check NOT passed" in found.lines[1] and found.lines[1].endswith(": ok")
    page = report.render(replace(results, lifted=found), None)
    assert ". A fingerprint laid on another's picture</h2>" in page
    # The command takes what lies there, from wherever the demo was begun.
    command = f"--registry {tmp_path}/bound.db --lift-check 1 {found.pictures[1].file}"
    assert command in page and found.pictures[1].file.is_file()
    assert (tmp_path / "bound.db").is_file() and (tmp_path / "bound.safetensors").is_file()
    wrong = replace(found.pictures[1], honest=True)
    assert not replace(results, lifted=replace(found, pictures=[wrong])).right
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != tmp_path]
    names = [path.relative_to(tmp_path).as_posix() for path in written]
    ours = [name for name in names if not name.startswith("images/000")]
    assert ours and all(folder.OWN_FILES.fullmatch(name) for name in ours), ours


def test_a_missing_release_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert demo.main(["--out", str(out), "--model", str(tmp_path / "no.safetensors")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert not out.exists()
