"""`scalefp registry`: what its actions print, and one sentence for every mistake."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import scalefp
from conftest import HOLDERS, Run, assert_mistake
from registries import sql
from scalefp.key import Key
from scalefp.release.model import Model


def test_issue_prints_the_key_alone(run: Run, release: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    result = run("registry", "issue", "a", "--registry", path, "--model", release)
    assert (result.code, result.err) == (0, "")
    assert str(Key.from_hex(result.out, 128)) == result.out.strip()
    assert scalefp.Registry(path).find("a") == Key.from_hex(result.out)


def test_issue_json_names_the_parent(run: Run, release: Path, model: Model, tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    issued = run("registry", "issue", "a", "--registry", path, "--model", release, "--json").json
    assert issued["holder"] == "a"
    assert issued["model_digest"] == model.digest
    assert issued["revoked_at"] is None
    assert len(issued["key"]) == 32


def test_list_shows_holders_but_no_keys(run: Run, registry: Path) -> None:
    assert run("registry", "revoke", HOLDERS[0], "--registry", registry).code == 0
    text = run("registry", "list", "--registry", registry)
    first, second = text.out.splitlines()
    assert HOLDERS[0] in first and "revoked" in first
    assert HOLDERS[1] in second and "active" in second
    rows = run("registry", "list", "--registry", registry, "--json")
    assert [row["holder"] for row in rows.json] == list(HOLDERS)
    for record in scalefp.Registry(registry).list():
        assert str(record.key) not in text.out + rows.out


def test_show_prints_every_key_of_a_holder(run: Run, registry: Path, release: Path) -> None:
    run("registry", "revoke", "recipient-a", "--registry", registry)
    run("registry", "issue", "recipient-a", "--registry", registry, "--model", release)
    keys = [str(record.key) for record in scalefp.Registry(registry).show("recipient-a")]
    lines = run("registry", "show", "recipient-a", "--registry", registry).out.splitlines()
    assert [line.split()[0] for line in lines] == keys
    rows = run("registry", "show", "recipient-a", "--registry", registry, "--json").json
    assert [row["key"] for row in rows] == keys
    assert [row["revoked_at"] is None for row in rows] == [False, True]


def test_registry_mistakes(
    run: Run, registry: Path, other_release: Path, release: Path, tmp_path: Path
) -> None:
    name = ["--registry", registry]
    assert_mistake(run("registry", "issue", "recipient-a", *name, "--model", release), "active")
    assert_mistake(run("registry", "issue", "c", *name, "--model", other_release), "another")
    assert_mistake(run("registry", "show", "nobody", *name), "ever issued", "nobody")
    assert_mistake(run("registry", "revoke", "nobody", *name), "ever issued")
    run("registry", "revoke", "recipient-a", *name)
    assert_mistake(run("registry", "revoke", "recipient-a", *name), "revoked")
    missing = tmp_path / "missing.db"
    assert_mistake(run("registry", "list", "--registry", missing), "no registry")
    assert not missing.exists()
    assert_mistake(run("registry", "list", "--registry", release), "not a scalefp registry")
    unwritable = release / "keys.db"  # below a file
    result = run("registry", "issue", "a", "--registry", unwritable, "--model", release)
    assert_mistake(result, "cannot create")


def test_the_registry_answers_without_torch(registry: Path) -> None:
    code = (
        "import sys; from scalefp.cli import main; "
        f"code = main(['registry', 'list', '--registry', {str(registry)!r}]); "
        "import scalefp.attribution.evidence; scalefp.Registry, scalefp.Key, scalefp.attribute; "
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "recipient-a" in done.stdout


# Many holders.


@pytest.fixture
def names() -> Path:
    path = Path("names.txt")
    path.write_text('b\na b\n"x", y\n')
    return path


@pytest.fixture
def master() -> Path:
    path = Path("master.key")
    path.touch(0o600)
    path.write_bytes(b"s" * 32)
    return path


def test_issue_to_the_holders_in_a_file(run: Run, registry: Path, release: Path) -> None:
    Path("names.txt").write_text('b\na b\n"x", y\n')
    to = ["--registry", registry, "--model", release]
    result = run("registry", "issue", "--holders", "names.txt", *to)
    assert (result.code, result.err) == (0, "")
    find = scalefp.Registry(registry).find
    lines = [f"{find(holder)}  {holder}" for holder in ("b", "a b", '"x", y')]
    assert result.out.splitlines() == lines
    assert_mistake(run("registry", "issue", "--holders", "names.txt", *to), "'\"x\", y' has")
    Path("more.txt").write_text("c\nd\n")
    rows = run("registry", "issue", "--holders", "more.txt", *to, "--json").json
    assert rows == [{"holder": holder, "key": str(find(holder))} for holder in "cd"]


def test_issue_wants_one_holder_or_a_file_of_them(run: Run, release: Path, names: Path) -> None:
    to = ["--registry", "keys.db", "--model", release]
    for wrong in ([], ["Alice", "Smith"], ["a", "--holders", names]):
        assert_mistake(run("registry", "issue", *wrong, *to), "one holder", "--holders")
    assert_mistake(run("registry", "issue", "--holders", "none.txt", *to), "cannot read none.txt")
    names.write_text("a\n\tb\tc\n")
    assert_mistake(
        run("registry", "issue", "--holders", names, *to), "names.txt, line 2", "printed"
    )
    assert os.listdir() == ["names.txt"]


def test_issue_takes_the_holder_behind_options(run: Run, release: Path) -> None:
    result = run("registry", "issue", "--registry", "keys.db", "--model", release, "Alice Smith")
    assert result.code == 0
    assert scalefp.Registry("keys.db").find("Alice Smith") == Key.from_hex(result.out)


# Derived keys.


def test_a_lost_registry_is_rebuilt(run: Run, release: Path, names: Path, master: Path) -> None:
    secret = ["--model", release, "--master", master]
    assert run("registry", "issue", "--holders", names, "--registry", "a.db", *secret).code == 0
    run("registry", "revoke", "b", "--registry", "a.db")
    run("registry", "issue", "b", "--registry", "a.db", *secret)
    kept = run("registry", "list", "--names", "--registry", "a.db")
    assert kept.out == 'b\na b\n"x", y\nb\n'
    assert run("registry", "list", "--names", "--registry", "a.db", "--json").json[1] == "a b"
    Path("kept.txt").write_text(kept.out)
    result = run("registry", "rebuild", "kept.txt", "--registry", "b.db", *secret)
    assert (result.code, result.out) == (0, "4 keys rebuilt\n")
    old, new = (run("registry", "show", "b", "--registry", f"{x}.db", "--json").json for x in "ab")
    assert [row["key"] for row in old] == [row["key"] for row in new]
    again = run("registry", "rebuild", "kept.txt", "--registry", "b.db", *secret)
    assert_mistake(again, "holds keys already")
    result = run("registry", "rebuild", "kept.txt", "--registry", "c.db", *secret, "--json")
    assert result.json == {"keys": 4, "head": scalefp.Registry("c.db").head()}


def test_mistakes_with_the_master_secret(run: Run, release: Path, master: Path) -> None:
    def issue(holder: str, *options: object) -> list[object]:
        where = ["--registry", "keys.db", "--model", release]
        return ["registry", "issue", holder, *where, *options]

    master.chmod(0o644)
    assert_mistake(run(*issue("a", "--master", master)), "master.key", "chmod 600")
    master.chmod(0o600)
    assert_mistake(run(*issue("a", "--master", "none")), "the master secret: cannot read none")
    assert os.listdir() == ["master.key"]
    assert run(*issue("a", "--master", master)).code == 0
    assert_mistake(run(*issue("b")), "derived from a master secret")
    master.write_bytes(b"t" * 32)
    assert_mistake(run(*issue("b", "--master", master)), "another master secret")
    master.write_bytes(b"too short")
    assert_mistake(run(*issue("b", "--master", master)), "holds 9 bytes", "/dev/urandom")


def test_keys_too_short_for_any_verdict_are_said_at_issue(
    run: Run, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--registry", "keys.db", "--model", release]
    assert run("registry", "issue", "a", *where).err == ""
    monkeypatch.setattr("scalefp.attribution.evidence.DEFAULT_FPR", 1e-39)  # as 2^-128 is not
    result = run("registry", "issue", "b", *where)
    assert result.code == 0 and len(result.out) == 33
    assert result.err.startswith(
        "scalefp: nobody can ever be named at an fpr of 1e-39: with 2 keys"
    )
    entry = json.loads(run("registry", "issue", "c", *where, "--json").out)
    assert entry["never"].startswith("nobody can ever be named at an fpr of 1e-39: with 3 keys")
    Path("names").write_text("d\ne\n")
    many = json.loads(run("registry", "issue", "--holders", "names", *where, "--json").out)
    assert ["with 5 keys" in entry["never"] for entry in many] == [True, True]


def test_keys_too_short_for_the_fpr_are_said_at_attribution(
    run: Run, registry: Path, release: Path, images: list[Path]
) -> None:
    arguments = ["attribute", "--model", release, "--registry", registry, images[0]]
    result = run(*arguments, "--fpr", "1e-38")
    assert result.code == 1 and "nobody can ever be named" not in result.err
    result = run(*arguments, "--fpr", "1e-39")
    assert result.code == 1 and result.out.endswith(": nobody\n")
    sentence = "nobody can ever be named at an fpr of 1e-39: with 2 keys of 128 bits"
    assert sentence in result.err
    (entry,) = json.loads(run(*arguments, "--fpr", "1e-39", "--json").out)
    assert entry["attributed"] == [] and entry["never"].startswith(sentence)
    (entry,) = json.loads(run(*arguments, "--fpr", "1e-38", "--json").out)
    assert "never" not in entry


# Changing and finding.


def test_reinstate(run: Run, registry: Path) -> None:
    run("registry", "revoke", "recipient-a", "--registry", registry)
    result = run("registry", "reinstate", "recipient-a", "--registry", registry)
    assert result.code == 0
    assert result.out.startswith("recipient-a  issued ") and result.out.endswith("  active\n")
    run("registry", "revoke", "recipient-a", "--registry", registry)
    row = run("registry", "reinstate", "recipient-a", "--registry", registry, "--json").json
    assert (row["holder"], row["revoked_at"]) == ("recipient-a", None)
    assert "key" not in row
    again = run("registry", "reinstate", "recipient-a", "--registry", registry)
    assert_mistake(again, "is active")


def test_search(run: Run, registry: Path) -> None:
    def found(*arguments: str) -> list[str]:
        result = run("registry", "search", *arguments, "--registry", registry, "--json")
        assert result.code == 0
        assert all("key" not in row for row in result.json)
        return [row["holder"] for row in result.json]

    assert found("IPIENT-B") == ["recipient-b"]
    assert found("reci", "--prefix") == list(HOLDERS)
    assert found("ipient", "--prefix") == []
    # An option, unless behind --.
    assert_mistake(run("registry", "search", "-b", "--registry", registry), "TEXT")
    lines = run("registry", "search", "--registry", registry, "--", "-b")
    assert lines.out.startswith("recipient-b  issued ")


# Checking and keeping.


def test_verify_says_what_it_checked(run: Run, registry: Path) -> None:
    head = scalefp.Registry(registry).head()
    result = run("registry", "verify", "--registry", registry)
    assert result.out == f"intact: 2 keys agree with 2 entries of the log, head {head}\n"
    run("registry", "revoke", "recipient-a", "--registry", registry)
    verify = ["registry", "verify", "--registry", registry, "--json"]
    newest = scalefp.Registry(registry).head()
    assert run(*verify, "--head", head.upper()).json == {"issued": 2, "entries": 3, "head": newest}
    assert_mistake(run(*verify, "--head", "00" * 32), "noted earlier", "not in its log")
    assert_mistake(run(*verify, "--head", "00"), "--head", "64")
    sql(str(registry), "UPDATE scalefp_keys SET holder = 'recipient-c' WHERE id = 2")
    assert_mistake(run(*verify), "entry 2", "issue of key 2", "recipient-c")


def test_log_tells_everything_but_keys(run: Run, registry: Path) -> None:
    run("registry", "revoke", "recipient-a", "--registry", registry)
    result = run("registry", "log", "--registry", registry)
    rows = [line.split() for line in result.out.splitlines()]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("1", "issue", "recipient-a"),
        ("2", "issue", "recipient-b"),
        ("3", "revoke", "recipient-a"),
    ]
    entries = run("registry", "log", "--registry", registry, "--json").json
    assert list(entries[0]) == ["seq", "at", "action", "holder"]
    assert entries[2]["action"] == "revoke"
    for record in scalefp.Registry(registry).list():
        assert str(record.key) not in result.out + json.dumps(entries)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_export_and_import(run: Run, registry: Path, suffix: str) -> None:
    out = f"keys{suffix}"
    run("registry", "revoke", "recipient-a", "--registry", registry)
    result = run("registry", "export", "--registry", registry, "--out", out)
    assert (result.code, result.out) == (0, f"{out}: 3 lines\n")
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o600
    assert_mistake(run("registry", "export", "--registry", registry, "--out", out), "exists")
    result = run("registry", "import", out, "--registry", "new.db")
    assert (result.code, result.out) == (0, "2 keys imported\n")
    assert scalefp.Registry("new.db").list() == scalefp.Registry(registry).list()
    assert run("registry", "log", "--registry", "new.db").out.split()[2] == "import"
    assert_mistake(run("registry", "import", out, "--registry", "new.db"), "line ", "issued in the")
    rows = run("registry", "export", "--registry", registry, "--out", f"b{suffix}", "--json").json
    assert rows == {"out": f"b{suffix}", "lines": 3}
    rows = run("registry", "import", out, "--registry", "c.db", "--json").json
    assert rows == {"keys": 2, "head": scalefp.Registry("c.db").head()}
    text = Path(out).read_text().replace("revoke", "repeal")
    Path(out).write_text(text)
    line = len(text.splitlines())
    mistake = run("registry", "import", out, "--registry", "d.db")
    assert_mistake(mistake, f"{out}, line {line}", "nothing was imported")
    assert not Path("d.db").exists()


# PostgreSQL.


def test_every_action_on_postgresql(run: Run, postgresql: str, release: Path, names: Path) -> None:
    at = ["--registry", postgresql]
    assert run("registry", "issue", "--holders", names, *at, "--model", release).code == 0
    assert run("registry", "revoke", "b", *at).code == 0
    assert run("registry", "reinstate", "b", *at).code == 0
    assert run("registry", "list", "--names", *at).out == names.read_text()
    assert run("registry", "search", "A", "--prefix", *at).out.startswith("a b  issued")
    assert run("registry", "export", *at, "--out", "keys.csv").out == "keys.csv: 5 lines\n"
    assert run("registry", "verify", *at).out.startswith("intact: 3 keys agree with 5 entries")
    result = run("registry", "verify", "--registry", postgresql.replace("127.0.0.1", "127.0.0.9"))
    assert_mistake(result, "cannot be reached")
    password = postgresql.partition("@")[0].rpartition(":")[2]
    assert password not in result.err
