"""Issuing and listing keys over HTTP: who may, and what is never shown."""

import json

import pytest
from starlette.testclient import TestClient

import scalefp
from service.conftest import TOKEN, Connect
from service.test_app import assert_problem

RIGHT = {"authorization": f"Bearer {TOKEN}"}


def test_issuing_gives_the_key_once(client: TestClient, registry: scalefp.Registry) -> None:
    answer = client.post("/keys", json={"holder": " Zoë "}, headers=RIGHT)
    assert answer.status_code == 201
    issued = answer.json()
    assert issued["key"] == str(registry.find("Zoë"))
    assert (issued["holder"], issued["revoked_at"]) == ("Zoë", None)
    assert "key" not in client.get("/keys?holder=zo").json()[0]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer " + "x" * 5000,
    ],
)
def test_wrong_tokens_issue_nothing(
    client: TestClient, registry: scalefp.Registry, header: str | None
) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = client.post("/keys", json={"holder": "mallory"}, headers=headers)
    assert_problem(answer, 401, "wrong_token")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text
    assert len(registry) == 2


def test_a_token_that_is_not_ascii_is_wrong(client: TestClient) -> None:
    headers = {"authorization": "Bearer schlüssel".encode("latin-1")}
    answer = client.post("/keys", json={"holder": "mallory"}, headers=headers)
    assert_problem(answer, 401, "wrong_token")


def test_without_a_token_issuing_is_off(connect: Connect, registry: scalefp.Registry) -> None:
    client = connect(token=None)
    for headers in ({}, RIGHT, {"authorization": "Bearer "}, {"authorization": "Bearer None"}):
        answer = client.post("/keys", json={"holder": "mallory"}, headers=headers)
        assert_problem(answer, 403, "issuing_off")
    assert len(registry) == 2
    assert client.get("/health").json()["issuing"] is False
    assert len(client.get("/keys").json()) == 2


def test_a_holder_has_one_active_key(client: TestClient, registry: scalefp.Registry) -> None:
    answer = client.post("/keys", json={"holder": "alice"}, headers=RIGHT)
    assert_problem(answer, 409, "holder_has_key", "revoke")
    registry.revoke("alice")
    assert client.post("/keys", json={"holder": "alice"}, headers=RIGHT).status_code == 201
    revoked = [row["revoked_at"] is not None for row in client.get("/keys?holder=alice").json()]
    assert revoked == [True, False]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"holder": ""},
        {"holder": "   "},
        {"holder": "a\nb"},
        {"holder": "a\u0000b"},
        {"holder": "\ud800"},
        {"holder": "x" * 201},
        {"holder": 5},
        {"holder": None},
        {"holder": ["a"]},
        {"holder": "carol", "key": "00" * 16},
        [],
        "carol",
    ],
)
def test_bad_holders(client: TestClient, registry: scalefp.Registry, body: object) -> None:
    text = json.dumps(body)
    answer = client.post(
        "/keys", content=text, headers={**RIGHT, "content-type": "application/json"}
    )
    assert_problem(answer, 422, "invalid")
    assert len(registry) == 2


def test_listing_is_given_in_parts(client: TestClient) -> None:
    for number in range(3):
        client.post("/keys", json={"holder": f"dept {number}"}, headers=RIGHT)
    everybody = [row["holder"] for row in client.get("/keys").json()]
    assert everybody == ["alice", "bob", "dept 0", "dept 1", "dept 2"]
    parts = [client.get(f"/keys?skip={skip}&most=2").json() for skip in (0, 2, 4, 6)]
    assert [row["holder"] for part in parts for row in part] == everybody
    found = client.get("/keys", params={"holder": "DEPT", "skip": 1}).json()
    assert [row["holder"] for row in found] == ["dept 1", "dept 2"]
    assert client.get("/keys", params={"holder": "%"}).json() == []
    for query in ("most=0", "most=1001", "skip=-1", "skip=x", f"holder={'x' * 201}"):
        assert_problem(client.get(f"/keys?{query}"), 422, "invalid")
