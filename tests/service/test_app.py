"""Questions and answers over HTTP: what is right, and what is refused in which words."""

import hashlib
import io
import json
import logging
import re
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from httpx2 import Response
from PIL import Image
from starlette.testclient import TestClient

import scalefp
from scalefp.attribution.odds import in_words
from scalefp.errors import UntrustedRegistryError
from scalefp.release.model import Model
from scalefp.service.app import PAGE
from scalefp.service.desk import Desk
from scalefp.service.readers import Upload
from service.conftest import TOKEN, UPLOADS, Connect, form, png

AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}

# Answers.


def opened(*uploads: Upload) -> list[Image.Image]:
    return [Image.open(io.BytesIO(upload.data)) for upload in uploads]


def test_each_image_leads_to_its_holder_or_to_nobody(
    client: TestClient, registry: scalefp.Registry, model: Model
) -> None:
    answer = client.post("/attribute", files=form(*UPLOADS), headers=AUTHORIZED)
    assert answer.status_code == 200
    entries = answer.json()
    assert [entry["images"] for entry in entries] == [["hers.png"], ["a.png"], ["b.png"]]
    assert [[one["holder"] for one in entry["attributed"]] for entry in entries] == [
        ["alice"],
        [],
        [],
    ]
    for entry, upload in zip(entries, UPLOADS, strict=True):
        assert entry["sha256"] == [hashlib.sha256(upload.data).hexdigest()]
        assert (entry["fpr"], entry["form"], entry["issued"]) == (1e-6, "soft", 2)
        assert entry["model_digest"] == model.digest
        assert entry["registry_head"] == registry.head()
        assert entry["read"] == str(model.decode(opened(upload)).key)


def test_evidence_is_that_of_the_library(
    client: TestClient, registry: scalefp.Registry, model: Model
) -> None:
    client.headers.update(AUTHORIZED)
    reading = model.decode(opened(UPLOADS[0]))
    for kind in ("soft", "hard"):
        answer = client.post(f"/attribute?fpr=1e-9&form={kind}", files=form(UPLOADS[0]))
        (found,) = answer.json()[0]["attributed"]
        (expected,) = scalefp.attribute(reading, registry, 1e-9, form=kind)
        assert found["key"] == str(expected.key) == str(registry.find("alice"))
        assert found["matches"] == 128
        # The service's batches may round the logits differently in their last digits.
        assert found["p_value"] == pytest.approx(expected.p_value, rel=1e-3)
        assert found["margin"] == pytest.approx(expected.margin, rel=1e-3)
        assert found["effective_bits"] == pytest.approx(expected.effective_bits, rel=1e-3)
        assert found["odds"] == in_words(found["p_value"])


def test_too_few_bits_for_any_verdict_are_said(client: TestClient) -> None:
    (entry,) = client.post("/attribute?fpr=1e-39", files=form(UPLOADS[0])).json()
    assert entry["attributed"] == []
    assert entry["never"].startswith("nobody can ever be named at an fpr of 1e-39: with 2 keys")
    assert "never" not in client.post("/attribute", files=form(UPLOADS[0])).json()[0]


def test_keys_are_shown_to_who_knows_the_token_alone(
    client: TestClient, connect: Connect, registry: scalefp.Registry
) -> None:
    alice = str(registry.find("alice"))
    for asker, headers, shown in (
        (client, AUTHORIZED, True),
        (client, {}, False),
        (connect(), {}, False),
    ):
        answer = asker.post("/attribute", files=form(UPLOADS[0]), headers=headers)
        (found,) = answer.json()[0]["attributed"]
        assert found["holder"] == "alice" and found["matches"] == 128
        assert found.get("key") == (alice if shown else None)
        assert ("key" in found) is ("read" in answer.json()[0]) is shown
        assert (alice in answer.text) is shown
    wrong = {"authorization": "Bearer something-else-entirely"}
    answer = client.post("/attribute", files=form(UPLOADS[0]), headers=wrong)
    assert_problem(answer, 401, "wrong_token")
    answer = connect().post("/attribute", files=form(UPLOADS[0]), headers=AUTHORIZED)
    assert_problem(answer, 403, "issuing_off")


def test_nobody_is_named_at_will(client: TestClient, desk: Desk) -> None:
    """At a false-positive rate near 1 every holder would be named for any picture."""
    for fpr in ("0.9999", "0.0011"):
        answer = client.post(f"/attribute?fpr={fpr}", files=form(*UPLOADS))
        assert_problem(answer, 422, "invalid", "fpr", "0.001")
    assert client.post("/attribute?fpr=0.001", files=form(UPLOADS[0])).status_code == 200
    assert client.get("/health").json()["limits"]["fpr"] == desk.limits.fpr == 1e-3


def test_the_log_tells_what_was_asked_in_what_order(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client.post("/attribute", files=form(UPLOADS[0]))
    client.post("/attribute?same_source=true&form=hard&fpr=1e-9", files=form(*UPLOADS[1:]))
    lines = [line for line in caplog.messages if line.startswith("question ")]
    digests = [hashlib.sha256(upload.data).hexdigest()[:16] for upload in UPLOADS]
    first, second = (line.partition(": ")[2] for line in lines)
    assert first == f"each by itself, soft, fpr 1e-06, 1 image(s) {digests[0]}: 1 of 1 " + (
        "verdict(s) with a name"
    )
    assert second.startswith(f"one source, hard, fpr 1e-09, 2 image(s) {digests[1]} {digests[2]}: ")
    numbers = [int(line.split(":")[0].split()[1]) for line in lines]
    assert numbers[1] == numbers[0] + 1


def test_the_log_names_every_path_that_there_is_and_no_other(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    paths = [*PAGE, "/docs", "/openapi.json", "/health", "/keys"]
    for path in paths:
        for method in ("GET", "HEAD"):
            answer = client.request(method, path)
            assert answer.status_code == 200, (method, path)
    for path in ("/page.css%0Aforged", "/nowhere"):
        assert client.get(path).status_code == 404
    expected = [f"{method} {path} 200" for path in paths for method in ("GET", "HEAD")]
    expected += ["GET (no such path) 404"] * 2
    logged = [record.getMessage() for record in caplog.records if record.name.endswith(".guard")]
    assert [" ".join(line.split()[:-2]) for line in logged] == expected


def test_images_of_one_source_get_one_verdict(client: TestClient, model: Model) -> None:
    answer = client.post("/attribute?same_source=true", files=form(*UPLOADS), headers=AUTHORIZED)
    (entry,) = answer.json()
    assert entry["images"] == ["hers.png", "a.png", "b.png"] and len(entry["sha256"]) == 3
    assert entry["read"] == str(model.decode(opened(*UPLOADS)).key)


def test_decode_says_what_the_command_line_says(client: TestClient, model: Model) -> None:
    rows = client.post("/decode", files=form(*UPLOADS)).json()
    reading = model.decode(opened(*UPLOADS))
    assert [row["image"] for row in rows] == [upload.name for upload in UPLOADS]
    assert [row["key"] for row in rows] == [str(key) for key in reading.keys]
    assert [row["confidence"] for row in rows] == pytest.approx(list(reading.confidence), rel=1e-4)


def test_verdicts_follow_the_registry(
    client: TestClient, registry: scalefp.Registry, model: Model
) -> None:
    before = client.post("/attribute", files=form(UPLOADS[0])).json()[0]
    registry.issue("carol", model)
    after = client.post("/attribute", files=form(UPLOADS[0])).json()[0]
    assert (before["issued"], after["issued"]) == (2, 3)
    assert before["registry_head"] != after["registry_head"] == registry.head()
    ratio = after["attributed"][0]["p_value"] / before["attributed"][0]["p_value"]
    assert ratio == pytest.approx(1.5)


def test_health_says_what_the_service_works_with(
    client: TestClient, registry: scalefp.Registry, model: Model, desk: Desk
) -> None:
    health = client.get("/health").json()
    assert health["status"] == "ok" and health["issuing"] is True
    assert health["release"] == {"digest": model.digest, "resolution": 16, "n_bits": 128}
    assert health["registry"] == {"issued": 2, "head": registry.head()}
    assert health["limits"]["pixels"] == desk.limits.pixels


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "<b>.png", "fahrrad 🚲.png", "x" * 300])
def test_names_are_given_back_as_sent(client: TestClient, name: str) -> None:
    answer = client.post("/decode", files=[("images", (name, UPLOADS[0].data))])
    # Without a file name a part is no file at all.
    assert answer.status_code == (200 if name else 422)
    if name:
        assert answer.json()[0]["image"] == name


# What is refused.


def assert_problem(answer: Response, status: int, code: str, *words: str) -> None:
    """One shape for every error, one sentence, and the guard's headers."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] == code
    for word in words:
        assert word in body["error"]["message"]


def test_bad_questions(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for query in ("fpr=0", "fpr=1", "fpr=-1", "fpr=nan", "fpr=often", "same_source=perhaps"):
        answer = client.post(f"/attribute?{query}", files=form(UPLOADS[0]))
        assert_problem(answer, 422, "invalid", query.partition("=")[0])
    answer = client.post("/attribute?form=medium", files=form(UPLOADS[0]))
    assert_problem(answer, 422, "invalid", "'soft' or 'hard'")
    for path in ("/attribute", "/decode"):
        assert_problem(client.post(path), 422, "invalid", "images")
        assert_problem(client.post(path, content=UPLOADS[0].data), 422, "invalid", "images")
        assert_problem(client.post(path, json={"images": ["a.png"]}), 422, "invalid")
        assert_problem(client.post(path, data={"images": "a.png"}), 422, "invalid")
        broken = {"content-type": "multipart/form-data; boundary=x"}
        assert_problem(client.post(path, content=b"--y", headers=broken), 400, "bad_request")
        assert_problem(client.get(path), 405, "method_not_allowed", "/docs")
        assert client.get(path).headers["allow"] == "POST"
    assert_problem(client.get("/admin"), 404, "no_such_path")
    assert_problem(client.get("/page/../serve.py"), 404, "no_such_path")


def test_too_many_images(connect: Connect, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "limits", replace(desk.limits, images=2))
    client = connect()
    assert client.post("/decode", files=form(*UPLOADS[:2])).status_code == 200
    assert_problem(client.post("/decode", files=form(*UPLOADS)), 413, "too_many_images", "3", "2")


def test_one_broken_image_is_named(client: TestClient) -> None:
    cut = Upload("cut.png", UPLOADS[1].data[:200])
    digest = hashlib.sha256(cut.data).hexdigest()
    answer = client.post("/attribute", files=form(UPLOADS[0], cut, UPLOADS[2]))
    hers, failed, nobody = answer.json()
    assert [one["holder"] for one in hers["attributed"]] == ["alice"]
    assert nobody["images"] == ["b.png"] and nobody["attributed"] == []
    assert (failed["images"], failed["sha256"]) == (["cut.png"], [digest])
    assert failed["error"]["code"] == "image_refused" and "cut.png" in failed["error"]["message"]
    assert set(failed) == {"images", "sha256", "error"}

    rows = client.post("/decode", files=form(cut, UPLOADS[0])).json()
    assert [row["image"] for row in rows] == ["cut.png", "hers.png"]
    assert "key" not in rows[0] and "cut.png" in rows[0]["error"]["message"]

    asked = client.post("/attribute?same_source=true", files=form(UPLOADS[0], cut))
    (entry,) = asked.json()
    assert entry["images"] == ["hers.png"]
    assert [one["images"] for one in entry["unread"]] == [["cut.png"]]
    for path in ("/attribute", "/decode"):
        assert_problem(client.post(path, files=form(cut)), 422, "image_refused", "cut.png")


def test_a_registry_without_keys_names_nobody_at_all(
    connect: Connect, desk: Desk, tmp_path: Path
) -> None:
    with mock.patch.object(desk, "registry", scalefp.Registry(tmp_path / "none.db")):
        client = connect(token=TOKEN)
        assert_problem(client.post("/attribute", files=form(UPLOADS[0])), 409, "no_key_issued")
        assert client.get("/health").json()["registry"] == {"issued": 0, "head": None}
        assert client.get("/keys").json() == []
        assert client.post("/decode", files=form(UPLOADS[0])).status_code == 200


def test_an_unusable_registry_is_explained_in_the_log_alone(
    connect: Connect, desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "garbage.db"
    path.write_bytes(b"no database" * 1000)
    with mock.patch.object(desk, "registry", scalefp.Registry(path)):
        client = connect(token=TOKEN)
        headers = {"authorization": f"Bearer {TOKEN}"}
        for answer in (
            client.post("/attribute", files=form(UPLOADS[0])),
            client.get("/health"),
            client.get("/keys"),
            client.post("/keys", json={"holder": "carol"}, headers=headers),
        ):
            assert_problem(answer, 503, "registry_unavailable", "log")
            assert int(answer.headers["retry-after"]) > 0
            assert "garbage" not in answer.text
    assert "garbage.db is not a scalefp registry" in caplog.text


def test_health_does_not_wait_for_a_registry_that_another_process_holds(
    connect: Connect, desk: Desk, tmp_path: Path
) -> None:
    with (
        mock.patch.object(desk, "limits", replace(desk.limits, health_seconds=0.2)),
        closing(sqlite3.connect(tmp_path / "keys.db", isolation_level=None)) as other,
    ):
        client = connect()
        other.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        answer = client.get("/health")
        assert time.monotonic() - begun < 5
        assert_problem(answer, 503, "registry_unavailable", "did not answer within 0.2 s")
        assert int(answer.headers["retry-after"]) > 0
        other.execute("ROLLBACK")
    assert connect().get("/health").status_code == 200


def test_a_registry_that_was_tampered_with_names_nobody(
    connect: Connect, desk: Desk, registry: scalefp.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*arguments: object, **options: object) -> None:
        raise UntrustedRegistryError("two keys of alice and bob lie nearer than chance allows")

    monkeypatch.setattr(Desk, "_judge", planted)
    answer = connect().post("/attribute", files=form(UPLOADS[0]))
    assert_problem(answer, 503, "registry_untrusted", "verify")
    assert "alice" not in answer.text and "retry-after" not in answer.headers


def test_a_registry_of_another_release_gives_no_verdict(
    connect: Connect, desk: Desk, tmp_path: Path, other_release: Path
) -> None:
    other = scalefp.Registry(tmp_path / "other.db")
    other.issue("alice", scalefp.load(other_release))
    with mock.patch.object(desk, "registry", other):
        answer = connect().post("/attribute", files=form(UPLOADS[0]))
    assert_problem(answer, 503, "registry_unavailable")


def test_requests_beyond_the_waiting_ones_are_turned_away(
    connect: Connect, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "limits", replace(desk.limits, waiting=0))
    answer = connect().post("/decode", files=form(UPLOADS[0]))
    assert_problem(answer, 503, "busy", "try again")
    assert answer.headers["retry-after"] == "1"


def test_work_that_takes_too_long_is_given_up(
    connect: Connect, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "limits", replace(desk.limits, work_seconds=0))
    assert_problem(connect().post("/decode", files=form(UPLOADS[0])), 503, "busy")


def test_a_crash_shows_nothing_of_itself(
    client: TestClient, registry: scalefp.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: object) -> None:
        raise RuntimeError(f"the key is {registry.find('alice')}")

    monkeypatch.setattr(Desk, "decode", crash)
    answer = client.post("/decode", files=form(UPLOADS[0]))
    assert_problem(answer, 500, "internal")
    assert str(registry.find("alice")) not in answer.text


def test_neither_errors_nor_logs_hold_keys(
    client: TestClient, registry: scalefp.Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    alice = str(registry.find("alice"))
    headers = {"authorization": f"Bearer {TOKEN}"}
    named = client.post("/attribute", files=form(UPLOADS[0]), headers=headers)
    assert alice in named.text  # the answer itself is the one place
    fresh = client.post("/keys", json={"holder": "carol"}, headers=headers).json()["key"]
    answers = [
        client.get(f"/keys/{alice}"),
        client.get(f"/{alice}?key={alice}"),
        client.get(f"/keys?most={alice}"),
        client.get("/keys"),
        client.get("/health"),
        client.post(f"/attribute?fpr={alice}", files=form(UPLOADS[0])),
        client.post("/keys", json={"holder": "alice"}, headers=headers),
        client.post("/keys", json={"holder": "", "key": alice}, headers=headers),
        client.post("/keys", content=alice, headers=headers),
        client.post("/keys", json={"holder": "x"}, headers={"authorization": f"Bearer {alice}"}),
    ]
    # The client of this test logs what it asked for, which holds the keys.
    logged = [one.getMessage() for one in caplog.records if not one.name.startswith("http")]
    written = "\n".join([*logged, *(answer.text for answer in answers)])
    assert "POST /keys 201" in written and "GET (no such path) 404" in written
    for key in (alice, fresh, str(registry.find("bob")), TOKEN):
        assert key not in written and key[:12] not in written


# The page and the manual.


def test_pages_fetch_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert not re.search(r"https?:|//|style=|\son\w+=|<script>|<style", page.text)
        for name in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            linked = client.get(f"/{name.removeprefix('./')}")
            assert linked.status_code == 200
            assert "@import" not in linked.text and "url(" not in linked.text
    assert client.get("/page.js").headers["content-type"].startswith("text/javascript")


def test_the_manual_names_every_path_and_error(client: TestClient) -> None:
    manual, openapi = client.get("/docs").text, client.get("/openapi.json").json()
    assert len(openapi["paths"]) == 4
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            assert f"<code>{method.upper()} {path}</code>" in manual
            assert {"500", "503"} <= set(operation["responses"])
    assert "image_too_slow" in manual and "curl" in manual


def test_large_images_are_read_too(client: TestClient) -> None:
    answer = client.post("/decode", files=form(Upload("large.png", png(7, (1000, 999)))))
    assert answer.status_code == 200, json.dumps(answer.json())
