"""The investigator's page in a real browser: drop or choose, read the verdict, take the report."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.conftest import UPLOADS, Live

api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'scalefp[browser]'"
)
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed", allow_module_level=True)

Page = api.Page
expect = api.expect
expect.set_options(timeout=60_000)
FINISHED = re.compile(r"^\d+ images?: .*\.$")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        # As root, as in most containers, Chromium's own sandbox cannot be set up.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=[(1200, 900), (375, 720)], ids=["desktop", "phone"])
def page(browser: Any, live: Live, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, which may ask nobody but the service, and on which no script may fail."""
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(60_000)
    page = context.new_page()
    asked: list[str] = []
    failures: list[str] = []
    page.on("request", lambda made: asked.append(made.url))
    page.on("pageerror", lambda error: failures.append(str(error)))

    def note(said: Any) -> None:
        # What the service refuses, the page says; the browser notes the status, too.
        if not said.text.startswith("Failed to load resource"):
            failures.append(said.text)

    page.on("console", note)
    page.goto(live.url)
    expect(page.locator("#state")).to_contain_text("Release")
    yield page
    assert failures == []
    assert all(url.startswith((live.url, f"blob:{live.url}")) for url in asked)
    context.close()


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Alice's image, one of nobody, and one that is cut off."""
    paths = []
    for upload in (*UPLOADS[:2], UPLOADS[2]._replace(name="cut.png", data=UPLOADS[2].data[:200])):
        paths.append(str(tmp_path / upload.name))
        Path(paths[-1]).write_bytes(upload.data)
    return paths


def cards(page: Page) -> list[str]:
    return [text.replace("\n", " ") for text in page.locator("#list > li").all_inner_texts()]


def report(page: Page, tmp_path: Path) -> dict[str, Any]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Download report").click()
    assert re.fullmatch(r"scalefp-report-[\dT-]+\.json", download.value.suggested_filename)
    path = tmp_path / "report.json"
    download.value.save_as(path)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_each_image_gets_its_verdict(page: Page, pictures: list[str]) -> None:
    expect(page.locator("#answers")).to_be_hidden()
    page.get_by_label("Choose images").set_input_files(pictures)
    status = page.get_by_role("status")
    expect(status).to_have_text("3 images: alice (1), nobody (1), not judged (1).")
    named, nobody, cut = cards(page)
    assert "hers.png" in named and "alice" in named
    assert re.search(r"At most 1 in \d × 10 ?\d+", named) and "128 of 128 bits agree" in named
    assert "Nobody" in nobody and "None of the 2 issued keys agrees" in nobody
    assert "Not judged" in cut and "cut.png is truncated or corrupt" in cut
    # Nothing is wider than the screen, and every picture that can be shown is.
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    loaded = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert loaded[:2] == [20, 20]


def test_the_strip_counts_the_bits_and_tells_none(page: Page) -> None:
    drawn = page.evaluate(
        """async () => {
          const { explain } = await import("./verdict.js");
          const named = { holder: "x", odds: "1 in 2", matches: 6, p_value: 0.5 };
          const entry = { attributed: [named], issued: 1 };
          const [, below] = explain({ entry, state: "judged" }, 8);
          const bars = [...below[1].querySelectorAll("rect")];
          return [below[1].getAttribute("aria-label"), bars.map((bar) => bar.className.baseVal)];
        }"""
    )
    assert drawn == ["6 of 8 bits agree", ["agrees"] * 6 + ["differs"] * 2]


def test_the_report_dates_everything_and_holds_no_key(
    page: Page, pictures: list[str], live: Live, tmp_path: Path
) -> None:
    page.get_by_label("Choose images").set_input_files(pictures)
    expect(page.get_by_role("status")).to_have_text(FINISHED)
    content = report(page, tmp_path)
    named, nobody, cut = content["results"]
    assert named["sha256"] == [hashlib.sha256(UPLOADS[0].data).hexdigest()]
    assert named["registry_head"] == nobody["registry_head"] == live.registry.head()
    assert named["model_digest"] == content["release"]["digest"] == live.registry.model_digest
    assert [one["holder"] for one in named["attributed"]] == ["alice"]
    assert named["attributed"][0]["p_value"] < 1e-30 and nobody["attributed"] == []
    assert (named["fpr"], named["issued"], content["same_source"]) == (1e-6, 2, False)
    assert cut["images"] == ["cut.png"] and "truncated" in cut["error"]
    assert str(live.registry.find("alice")) not in json.dumps(content)


def saved(page: Page, button: str, tmp_path: Path) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    download.value.save_as(tmp_path / "saved")
    return (tmp_path / "saved").read_text()


def test_the_report_as_a_table_and_on_paper(
    page: Page, pictures: list[str], live: Live, tmp_path: Path
) -> None:
    risky = tmp_path / "=HYPERLINK(1).png"
    risky.write_bytes(UPLOADS[0].data)
    page.get_by_label("Choose images").set_input_files([*pictures, str(risky)])
    expect(page.get_by_role("status")).to_have_text(FINISHED)
    table = saved(page, "CSV", tmp_path)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["verdict"] for row in rows] == ["named", "nobody", "not judged", "named"]
    assert [row["holder"] for row in rows] == ["alice", "", "", "alice"]
    assert float(rows[0]["p_value"]) < 1e-30 and rows[0]["matches"] == "128"
    assert rows[3]["images"] == "'=HYPERLINK(1).png"  # a spreadsheet runs nothing
    paper = saved(page, "To print", tmp_path)
    assert paper.startswith("<!doctype html>") and "<script" not in paper
    assert paper.count("<tr>") == 1 + 4 + 1 + 4 and live.registry.head() in paper
    for text in (table, paper):
        assert str(live.registry.find("alice")) not in text


def test_the_report_tells_every_question(page: Page, pictures: list[str], tmp_path: Path) -> None:
    """Also those about images that were taken away after their verdict was seen."""
    page.get_by_label("Choose images").set_input_files(pictures[:2])
    expect(page.get_by_role("status")).to_have_text(FINISHED)
    page.get_by_role("button", name="Remove a.png").click()
    page.get_by_label("All images come from one source").check()
    expect(page.get_by_role("status")).to_have_text("1 image: alice.")
    asked = report(page, tmp_path)["asked"]
    assert [(one["images"], one["same_source"]) for one in asked] == [
        (["hers.png"], False),
        (["a.png"], False),
        (["hers.png"], True),
    ]
    assert [one["named"] for one in asked] == [["alice"], [], ["alice"]]
    assert asked[1]["sha256"] == [hashlib.sha256(UPLOADS[1].data).hexdigest()]


def test_names_come_first_and_can_be_filtered(page: Page, pictures: list[str]) -> None:
    hers, nobodys, cut = pictures
    page.get_by_label("Choose images").set_input_files([cut, nobodys, hers])
    expect(page.get_by_role("status")).to_have_text(FINISHED)
    shown = page.locator("#list > li:visible .file")
    assert shown.all_inner_texts() == ["hers.png", "a.png", "cut.png"]
    for choice, names in (("named", ["hers.png"]), ("nobody", ["a.png"]), ("failed", ["cut.png"])):
        page.get_by_label("Show").select_option(choice)
        assert shown.all_inner_texts() == names


def test_images_of_one_source_are_judged_as_one(
    page: Page, pictures: list[str], tmp_path: Path
) -> None:
    page.get_by_label("Choose images").set_input_files(pictures[:1] * 2)
    page.get_by_label("All images come from one source").check()
    expect(page.get_by_role("status")).to_have_text("2 images: alice.")
    (card,) = cards(page)
    assert "2 images as one" in card
    page.get_by_label("Name somebody wrongly").select_option("a billion")
    expect(page.get_by_role("status")).to_have_text("2 images: alice.")
    (result,) = report(page, tmp_path)["results"]
    assert (result["fpr"], len(result["sha256"])) == (1e-9, 2)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#answers")).to_be_hidden()


def test_everything_can_be_done_by_keyboard(page: Page, pictures: list[str]) -> None:
    page.on("filechooser", lambda chooser: None)  # takes effect before the key does
    page.keyboard.press("Tab")
    focused = "document.activeElement.id"
    assert page.evaluate(focused) == "files"
    outline = "getComputedStyle(document.querySelector('#drop label')).outlineStyle"
    assert page.evaluate(outline) == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(pictures[:2])
    expect(page.get_by_role("status")).to_have_text(FINISHED)
    visited = []
    for _ in range(9):
        page.keyboard.press("Tab")
        name = "document.activeElement.ariaLabel ?? document.activeElement.textContent.trim()"
        visited.append(page.evaluate(f"document.activeElement.id || ({name})"))
    expected = ["together", "fpr", "report", "csv", "html", "clear", "filter"]
    expected += ["Remove hers.png", "Remove a.png"]
    assert visited == expected
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("1 image: alice.")
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove hers.png"


def test_images_can_be_dropped(page: Page) -> None:
    page.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "<img src=x onerror=alert(1)>.png"));
          const options = { bubbles: true, cancelable: true, dataTransfer: data };
          document.body.dispatchEvent(new DragEvent("dragover", options));
          document.body.dispatchEvent(new DragEvent("drop", options));
        }""",
        list(UPLOADS[0].data),
    )
    expect(page.get_by_role("status")).to_have_text("1 image: alice.")
    assert "<img src=x onerror=alert(1)>.png" in cards(page)[0]


def test_too_large_a_file_is_not_even_sent(page: Page) -> None:
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(33 * 2 ** 20)], "huge.png"));
          document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: data }));
        }"""
    )
    expect(page.get_by_role("status")).to_have_text("1 image: not judged.")
    assert "at most 32 MB" in cards(page)[0]


def test_a_busy_service_is_asked_again(page: Page, pictures: list[str]) -> None:
    answers = iter([503, 503])

    def handle(route: Any) -> None:
        status = next(answers, None)
        if status is None:
            route.continue_()
        else:
            route.fulfill(status=status, headers={"Retry-After": "0"}, body="{}")

    page.route("**/attribute?*", handle)
    page.get_by_label("Choose images").set_input_files(pictures[:1])
    expect(page.get_by_role("status")).to_have_text("1 image: alice.")


def test_an_unreachable_service_is_said(page: Page, pictures: list[str]) -> None:
    page.route("**/attribute?*", lambda route: route.abort())
    page.get_by_label("Choose images").set_input_files(pictures[:1])
    expect(page.get_by_role("status")).to_have_text("1 image: not judged.")
    assert "cannot be reached" in cards(page)[0]


def test_the_manual_can_be_read_on_this_screen(page: Page, live: Live) -> None:
    page.get_by_role("link", name="Interface for programs").click()
    expect(page.get_by_role("heading", name="POST /attribute")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
