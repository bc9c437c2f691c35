"""``scalefp scan``: from every kind of source the verdicts of ``attribute``, whatever is killed."""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from conftest import Result, Run, assert_mistake, write_image
from scalefp.errors import UserError
from scalefp.files import held
from scalefp.key import Key
from scalefp.registry import Registry
from scalefp.release.model import Model
from scalefp.scan import pool
from scalefp.scan.pool import Done, Work, scan_in_processes
from scalefp.scan.run import LOCK
from scalefp.scan.shards import Shard
from scalefp.scan.worker import Task, Worker

IMAGES = 10
Scan = Callable[..., Result]


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """A folder of images, some at depth, two that cannot be read, and three that are none."""
    folder = tmp_path / "crawl"
    for number in range(IMAGES):
        write_image(folder / ("deep" if number % 2 else "") / f"{number}.png", seed=number)
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:-200])
    (folder / "text.jpg").write_text("not an image")
    (folder / "without-ending").write_bytes((folder / "2.png").read_bytes())
    for name in ("notes.txt", "more.txt", "README"):
        (folder / name).write_text("notes")
    return folder


@pytest.fixture
def registry(tmp_path: Path, model: Model, crawl: Path) -> Path:
    """A registry whose holders have the keys that are read in two of the images."""
    path = tmp_path / "keys.db"
    for holder, image in (("alice", "0.png"), ("bob", "deep/3.png")):
        key = model.decode([crawl / image]).key
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Key, "random", classmethod(lambda cls, n_bits=128, key=key: key))
            Registry(path).issue(holder, model)
    return path


@pytest.fixture
def arguments(release: Path, registry: Path) -> list[object]:
    return ["--model", release, "--registry", registry, "--out", "scanned", "--shard", "4"]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are scanned by this process, which takes no seconds to start."""

    def scan(task: Task, works: Any, workers: int) -> Any:
        worker = Worker(task)
        return (pool.scan_shard(worker, work) for work in works)

    monkeypatch.setattr(pool, "scan_in_processes", scan)


def rows(out: str = "scanned") -> dict[str, dict[str, Any]]:
    """All rows by path."""
    table = parquet.read_table(Path(out, "shards")).to_pylist()
    found = {row["path"]: row for row in table}
    assert len(found) == len(table)
    return found


def attributed(run: Run, release: Path, registry: Path, folder: Path) -> dict[str, Any]:
    """What ``attribute`` says, in the words of a scan."""
    result = run("attribute", "--model", release, "--registry", registry, folder, "--json")
    said = {}
    for entry in result.json:
        (name,) = entry["images"]
        (best, *others) = entry.get("attributed") or [{}]
        verdict = "error" if "error" in entry else "attributed" if best else "nobody"
        said[name] = {
            "verdict": verdict, "p_value": best.get("p_value"), "holder": best.get("holder"),
            "matches": best.get("matches"),
            "others": [one["holder"] for one in others] if best else None,
        }  # fmt: skip
    return said


def packed(crawl: Path, kind: str) -> Path:
    """The same files in one archive beside the folder."""
    path = crawl.with_name(f"crawl.{kind}")
    files = sorted(file for file in crawl.rglob("*") if file.is_file())
    names = [str(file.relative_to(crawl)) for file in files]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, file in zip(names, files, strict=True):
                archive.write(file, name)
    elif kind == "parquet":
        data = [file.read_bytes() for file in files]
        value = pa.array(
            [{"bytes": one, "path": name} for one, name in zip(data, names, strict=True)]
        )
        parquet.write_table(pa.table({"label": names, "image": value}), path, row_group_size=5)
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
            for name, file in zip(names, files, strict=True):
                archive.add(file, name)
    return path


def test_a_folder_gives_what_attribute_says_of_each_image_alone(
    run: Run, arguments: list[object], crawl: Path, release: Path, registry: Path, in_process: None
) -> None:
    expected = attributed(run, release, registry, crawl)
    result = run("scan", crawl, *arguments, "--json")
    assert result.code == 0, result.err
    found = rows()
    assert {**found}.keys() == expected.keys()
    for name, row in found.items():
        assert {key: row[key] for key in expected[name]} == expected[name], name
        assert (row["error"] is not None) == (row["verdict"] == "error")
        assert row["digest"] == hashlib.sha256(Path(name).read_bytes()).hexdigest()
    summary = result.json
    assert summary == json.loads(Path("scanned/summary.json").read_text())
    assert (summary["images"], summary["attributed"], summary["unreadable"]) == (13, 2, 2)
    assert summary["holders"] == {"alice": 1, "bob": 1} and summary["failed"] == []
    assert summary["skipped"] == {".txt": 2, "without ending": 1}
    assert summary["expected_false"] == pytest.approx(1e-6 * 11)
    assert summary["shards"] == {"done": 4, "all": 4}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "parquet"])
def test_archives_give_the_same(
    run: Run, arguments: list[object], crawl: Path, in_process: None, kind: str
) -> None:
    assert run("scan", crawl, *arguments).code == 0
    expected = {str(Path(name).relative_to(crawl)): row for name, row in rows().items()}
    shutil.rmtree("scanned")
    archive = packed(crawl, kind)
    result = run("scan", archive, *arguments, "--json")
    assert result.code == 0, result.err
    found = {str(Path(name).relative_to(archive)): row for name, row in rows().items()}
    if kind == "parquet":  # whose rows are named ROW GROUP/ROW
        files = sorted(str(f.relative_to(crawl)) for f in crawl.rglob("*") if f.is_file())
        found = {files[5 * int(n[0]) + int(n[2:])]: row for n, row in found.items()}
        # A row of Parquet is meant as an image, whatever it holds.
        assert all(found.pop(n)["error"] for n in ("notes.txt", "more.txt", "README"))
    shown = ("verdict", "p_value", "holder", "matches", "others")
    assert {n: [row[key] for key in shown] for n, row in found.items()} == {
        n: [row[key] for key in shown] for n, row in expected.items()
    }
    assert all(row["digest"] in (expected[n]["digest"], None) for n, row in found.items())
    assert result.json["shards"]["all"] == {"zip": 4, "parquet": 4}.get(kind, 1)


def test_what_is_damaged_costs_its_own_row(
    run: Run, arguments: list[object], crawl: Path, in_process: None
) -> None:
    tar = packed(crawl, "tar")
    tar.write_bytes(tar.read_bytes()[:-12000])
    for name in ("bad.zip", "bad.parquet", "bad.tar"):
        (crawl / name).write_bytes(b"damaged" * 100)
    os.mkfifo(crawl / "pipe")
    result = run("scan", crawl, tar, *arguments, "--json")
    assert result.code == 0, result.err
    found = rows()
    for name in ("bad.zip", "bad.parquet/0", "bad.tar"):
        assert found[f"{crawl}/{name}"]["verdict"] == "error", name
    ends = [row for name, row in found.items() if name.startswith(f"{tar}/") and row["error"]]
    assert "damaged at or after" in str(ends[-1]["error"])
    assert result.json["attributed"] >= 2


def test_the_same_command_goes_on_and_another_is_refused(
    run: Run, arguments: list[object], crawl: Path, release: Path, registry: Path, model: Model,
    in_process: None,
) -> None:  # fmt: skip
    assert run("scan", crawl, *arguments).code == 0
    shards = sorted(Path("scanned/shards").iterdir())
    whole, written = rows(), {path: path.stat().st_mtime_ns for path in shards}
    shards[1].unlink()
    (shards[1].parent / f".{shards[1].name}.tmp").write_bytes(
        b"half"
    )  # of a worker that was killed
    Path("scanned/summary.json").unlink()
    assert run("scan", crawl, *arguments).code == 0
    assert rows() == whole and Path("scanned/summary.json").exists()
    assert all(path.stat().st_mtime_ns == written[path] for path in shards if path != shards[1])

    assert_mistake(run("scan", crawl, *arguments, "--fpr", "0.1"), "fpr = 1e-06, not 0.1")
    with held(Path("scanned", LOCK), ""):
        assert_mistake(run("scan", crawl, *arguments), "another scan is at work")
    Path("other").mkdir()
    Path("other/thesis.tex").touch()
    assert_mistake(run("scan", crawl, *arguments, "--out", "other"), "something else than a scan")
    assert_mistake(run("scan", "nowhere", *arguments, "--out", "new"), "there is no nowhere")
    run("registry", "issue", "carol", "--registry", registry, "--model", release)
    assert_mistake(run("scan", crawl, *arguments), "registry = ")


def damaged_plans() -> dict[str, Callable[[bytes], bytes]]:
    """Ways to damage a plan: the text before -> after."""
    return {
        "text": lambda plan: b"junk\n",
        "empty": lambda plan: b"",
        "bytes": lambda plan: b"\xff\xfe\n" + plan,
        "no settings": lambda plan: b'{"other": 1}\n' + plan,
        "list": lambda plan: b"[1]\n",
        "settings a number": lambda plan: b'{"settings": 1}\n',
        "settings a list": lambda plan: b'{"settings": []}\n',
        "deep": lambda plan: b"[" * 100_000 + b"\n",
        "cut": lambda plan: plan[:-20],
        "no shard": lambda plan: plan + b"3\n",
        "no such kind": lambda plan: plan + b'{"kind": "rar", "path": "a"}\n',
        "another name": lambda plan: plan + b'{"kind": "zip", "where": "a"}\n',
        "files a number": lambda plan: plan + b'{"kind": "files", "files": 3}\n',
        "no files": lambda plan: plan + b'{"kind": "files"}\n',
        "start a text": lambda plan: plan + b'{"kind": "zip", "path": "a", "start": "1"}\n',
    }


def test_a_damaged_plan_is_a_sentence_and_nothing_is_scanned(
    run: Run, arguments: list[object], crawl: Path, in_process: None
) -> None:
    assert run("scan", crawl, *arguments).code == 0
    plan, shards = Path("scanned/plan.jsonl"), sorted(Path("scanned/shards").iterdir())
    whole = plan.read_bytes()
    shards[0].unlink()
    for name, damage in damaged_plans().items():
        plan.write_bytes(damage(whole))
        result = run("scan", crawl, *arguments)
        assert result.code == 2 and "scanned/plan.jsonl is damaged: choose" in result.err, name
        assert "Traceback" not in result.err and not shards[0].exists(), name
    plan.unlink()
    plan.mkdir()
    assert_mistake(run("scan", crawl, *arguments), "plan.jsonl")
    plan.rmdir()
    plan.write_bytes(whole)
    assert run("scan", crawl, *arguments, "--json").json["images"] == 13


def test_a_damaged_file_of_a_shard_is_named_and_scanned_again_once_removed(
    run: Run, arguments: list[object], crawl: Path, in_process: None
) -> None:
    assert run("scan", crawl, *arguments).code == 0
    whole, shards = rows(), sorted(Path("scanned/shards").iterdir())
    shards[0].write_bytes(b"junk")
    shards[1].write_bytes(shards[1].read_bytes()[:-30])
    parquet.write_table(pa.table({"path": ["a"]}), shards[2])  # of somebody else
    result = run("scan", crawl, *arguments, "--json")
    assert result.code == 2
    assert [one["shard"] for one in result.json["failed"]] == [0, 1, 2]
    assert result.json["shards"] == {"done": 1, "all": 4}
    assert result.json["images"] == parquet.read_metadata(shards[3]).num_rows
    for path in shards[:3]:
        assert f"its file {path} is damaged: remove it" in result.err
        path.unlink()
    assert run("scan", crawl, *arguments, "--json").json["images"] == 13
    assert rows() == whole


def test_a_shard_that_nobody_foresaw_fails_alone(
    run: Run, arguments: list[object], crawl: Path, in_process: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real = Worker.scan

    def broken(self: Worker, number: int, shard: Shard) -> int:
        if number == 2:
            raise RuntimeError("of some\nlibrary")
        return real(self, number, shard)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "scan", broken)
        result = run("scan", crawl, *arguments)
    assert result.code == 2
    assert "shard 2 (4 files from " in result.err and "RuntimeError: of some library" in result.err
    assert (
        "1 shard could not be scanned; the same command tries again what is missing" in result.err
    )
    assert run("scan", crawl, *arguments, "--json").json["shards"] == {"done": 4, "all": 4}


# Processes.


def task(release: Path, registry: Path, folder: Path) -> Task:
    head = Registry(registry).snapshot().head
    return Task(str(release), str(registry), head, str(folder), 1e-6, "soft", False, 10**6)


def workers() -> list[multiprocessing.process.BaseProcess]:
    """The living children, without those that joblib keeps for the next sweep of another test."""
    children = multiprocessing.active_children()
    return [child for child in children if not child.name.startswith("LokyProcess")]


def test_a_killed_worker_loses_nothing(
    release: Path, registry: Path, crawl: Path, tmp_path: Path
) -> None:
    """Its shard is scanned by another one, and every image is in one row."""
    images = sorted(map(str, crawl.rglob("*.png")))
    works = [Work(n, Shard("files", files=tuple(images[n::3]))) for n in range(3)]
    out, tar = tmp_path / "shards", tmp_path / "stuck.tar"
    out.mkdir()
    os.mkfifo(tar)  # whoever opens it waits: there its worker is killed
    stuck = Work(3, Shard("tar", str(tar)))
    done: list[Done] = []
    for one in scan_in_processes(task(release, registry, out), [stuck, *works], 2):
        done.append(one)
        if len(done) == len(works):
            with tarfile.open(tmp_path / "whole.tar", "w") as archive:
                archive.add(images[0], "a.png")
            os.replace(tmp_path / "whole.tar", tar)
            for child in workers():
                child.kill()
    assert {one.work.number: one.problem for one in done} == dict.fromkeys(range(4), "")
    assert {one.work.number: one.work.deaths for one in done} == {0: 0, 1: 0, 2: 0, 3: 1}
    paths = [row["path"] for row in parquet.read_table(out).to_pylist()]
    assert sorted(paths) == sorted([*images, f"{tar}/a.png"])
    assert workers() == []


def test_a_release_that_cannot_be_read_ends_the_scan_and_its_processes(
    registry: Path, tmp_path: Path
) -> None:
    works = [Work(0, Shard("tar", "none.tar"))]
    with pytest.raises(UserError, match="no release 'missing'"):
        list(scan_in_processes(task(Path("missing"), registry, tmp_path), works, 1))
    assert workers() == []


def test_sigterm_ends_it_with_word_of_how_it_goes_on(
    run: Run, arguments: list[object], crawl: Path, in_process: None,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real = Worker.scan

    def stopped(self: Worker, number: int, shard: Shard) -> int:
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, number, shard)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "scan", stopped)
        with pytest.raises(SystemExit) as end:
            run("scan", crawl, *arguments)
    assert end.value.code == 143
    assert "the same command goes on with the shards that are missing" in capsys.readouterr().err
    assert len(list(Path("scanned/shards").glob("*.parquet"))) == 2
    assert run("scan", crawl, *arguments, "--json").json["images"] == 13


def test_a_ray_cluster_of_two_workers_gives_the_same(
    run: Run, arguments: list[object], crawl: Path, in_process: None
) -> None:
    pytest.importorskip("ray")
    assert run("scan", crawl, *arguments).code == 0
    expected = rows()
    shutil.rmtree("scanned")
    result = run("scan", crawl, *arguments, "--ray", "local", "--workers", "2")
    assert result.code == 0, result.err
    assert rows() == expected


def test_ray_that_is_not_installed_is_named(
    run: Run, arguments: list[object], crawl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert_mistake(run("scan", crawl, *arguments, "--ray", "local"), "pip install 'scalefp[ray]'")


def test_another_list_on_standard_input_is_another_scan(
    run: Run,
    arguments: list[object],
    crawl: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def scan(*images: str) -> Result:
        text = "".join(f"{crawl / image}\n" for image in images)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return run("scan", "-", *arguments, "--json")

    assert scan("0.png", "2.png").json["images"] == 2
    assert scan("0.png", "2.png").json["images"] == 2
    assert_mistake(scan("4.png"), "holds a scan with listed = ")
    assert set(rows()) == {str(crawl / "0.png"), str(crawl / "2.png")}
