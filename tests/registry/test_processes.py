"""Several processes on one registry, killed, or on a full disk: no key is lost or given twice."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from registries import MODEL
from scalefp.errors import UserError
from scalefp.registry.registry import Registry

START = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from scalefp.errors import UserError
from scalefp.registry.registry import Registry

place, name, start = sys.argv[1:]
model = SimpleNamespace(digest="ab" * 32, config=SimpleNamespace(n_bits=128))
print("ready", flush=True)
while not Path(start).exists():
    time.sleep(0.001)
"""

CONTEST = """
won = 0
for i in range(20):
    print(Registry(place).issue(f"{name}-{i}", model))
    try:
        Registry(place).issue(f"contested-{i}", model)
        won += 1
    except UserError as error:
        assert "has an active key already" in str(error), error
print(won)
"""

# Reports each key, or each bulk, once it is issued: what was reported must never be lost.
ONE_BY_ONE = """
registry = Registry(place)
for i in range(10**6):
    print(f"{name}-{i}", registry.issue(f"{name}-{i}", model), flush=True)
"""
BULK = """
registry = Registry(place)
for i in range(10**6):
    keys = registry.issue_many([f"{name}-{i}-{j}" for j in range(400)], model)
    print("".join(f"{name}-{i}-{j} {key} " for j, key in enumerate(keys)), flush=True)
"""


def launch(code, place, name, start):
    command = [sys.executable, "-c", START + code, place, name, str(start)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process


def reported(text):
    """Holders and keys in what an issuer printed, a torn last line aside."""
    words = text[: text.rfind("\n") + 1].split()
    return dict(zip(words[::2], words[1::2], strict=True))


def test_processes_issuing_at_once_lose_and_duplicate_nothing(place, tmp_path):
    start = tmp_path / "start"
    issuers = [launch(CONTEST, place, name, start) for name in ("p", "q")]
    for issuer in issuers:
        assert issuer.stdout.readline() == "ready\n"
    start.touch()  # both go for the creation of the registry, too
    outputs = [issuer.communicate(timeout=100)[0].split() for issuer in issuers]
    assert [issuer.returncode for issuer in issuers] == [0, 0]
    records = Registry(place).list()
    assert len(records) == len({r.key for r in records}) == len({r.holder for r in records}) == 60
    by_holder = {record.holder: str(record.key) for record in records}
    for name, output in zip("pq", outputs, strict=True):
        assert [by_holder[f"{name}-{i}"] for i in range(20)] == output[:20]
    assert sum(int(output[20]) for output in outputs) == 20
    assert Registry(place).verify().issued == 60


def test_killed_processes_leave_whole_transactions_and_an_intact_log(place, tmp_path):
    registry, start, told = Registry(place), tmp_path / "start", {}
    start.touch()
    for turn in range(3):
        issuers = [
            launch(code, place, f"{name}{turn}", start)
            for name, code in (("one", ONE_BY_ONE), ("bulk", BULK))
        ]
        for issuer in issuers:
            assert issuer.stdout.readline() == "ready\n"
            first = issuer.stdout.readline()
            told |= reported(first)
        time.sleep(0.02 * turn)  # at another point of what they are doing
        for issuer in issuers:
            issuer.send_signal(signal.SIGKILL)
        for issuer in issuers:
            told |= reported(issuer.communicate()[0])
            assert issuer.returncode == -signal.SIGKILL
        records = registry.list()
        by_holder = {record.holder: str(record.key) for record in records}
        assert len(set(by_holder.values())) == len(by_holder) == len(records)
        assert told.items() <= by_holder.items()
        bulks = [holder.rpartition("-")[0] for holder in by_holder if holder.startswith("bulk")]
        assert {bulks.count(bulk) for bulk in set(bulks)} == {400}
        assert registry.verify().issued == len(records)
        assert list(registry.keys_and_holders().holders) == list(by_holder)
        registry.issue(f"afterwards-{turn}", MODEL)


def limited(size):
    """A function for a child process: no file of its may grow beyond ``size`` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("code", [ONE_BY_ONE, BULK], ids=["one by one", "bulk"])
def test_a_full_disk_loses_nothing_and_leaves_an_intact_log(tmp_path, code):
    path, start = tmp_path / "keys.db", tmp_path / "start"
    start.touch()
    registry = Registry(path)
    before = registry.issue_many([f"before-{i}" for i in range(200)], MODEL)
    code = f"{START}\ntry:\n{'    '.join(code.splitlines(keepends=True))}\n"
    code += "except UserError as error:\n    print(error, file=sys.stderr)\n"
    child = subprocess.run(
        [sys.executable, "-c", code, str(path), "full", str(start)],
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=limited(path.stat().st_size + 30_000),
    )
    assert child.returncode == 0, child.stderr
    assert child.stderr.startswith(f"the registry {path} cannot be written (")
    assert child.stderr.endswith("): check the disk\n") and child.stderr.count("\n") == 1
    told = reported(child.stdout.partition("\n")[2])
    by_holder = {record.holder: str(record.key) for record in registry.list()}
    assert len(by_holder) == 200 + len(told)
    assert told.items() <= by_holder.items()
    assert [by_holder[f"before-{i}"] for i in range(200)] == [str(key) for key in before]
    assert registry.verify().issued == len(by_holder)
    registry.issue("afterwards", MODEL)


def test_a_disk_too_small_for_any_key_holds_no_registry(tmp_path):
    path = tmp_path / "keys.db"
    Path(tmp_path / "start").touch()
    code = f"{START}\ntry:\n    Registry(place).issue('a', model)\n"
    code += "except UserError as error:\n    print(error)\n"
    child = subprocess.run(
        [sys.executable, "-c", code, str(path), "full", str(tmp_path / "start")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        preexec_fn=limited(4096),
    )
    assert child.returncode == 0 and "cannot be written" in child.stdout
    with pytest.raises(UserError, match="is empty: no key was issued in it"):
        Registry(path).list()
    Registry(path).issue("a", MODEL)
    assert Registry(path).verify().issued == 1
