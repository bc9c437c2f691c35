"""experiments/performance/search.py: it measures searches that find the key, and prints them."""

import numpy as np
import pytest

import search as bench_search


def test_keys_in_memory_and_in_a_file_are_searched() -> None:
    results = bench_search.measure_search(2, keys=3000, mapped_keys=5000, n_bits=128)
    assert results["memory"]["keys"] == 3000 and results["file"]["keys"] == 5000
    for part in (results["memory"], results["file"]):
        assert len(part["rows"]) == 5
        for row in part["rows"]:
            assert 0 < row["fastest"] <= row["milliseconds_per_query"] <= row["slowest"]
            assert row["peak_mib"] > 0
    table = bench_search.markdown(results)
    assert "3,000 keys of 128 bits in memory" in table
    assert "5,000 keys of 128 bits in a memory-mapped file" in table


def test_a_search_that_finds_another_key_is_no_measurement() -> None:
    rng = np.random.default_rng(0)
    packed = bench_search.draw_keys(100, 16, rng)
    wanted = bench_search.reading_of(packed, 7, "hard", rng)
    bench_search.find([wanted], packed)
    with pytest.raises(AssertionError, match=r"searched for key 8, found \[7\]"):
        bench_search.find([wanted._replace(owner=8)], packed)


def test_a_full_disk_leaves_the_file_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(bench_search.shutil, "disk_usage", lambda folder: usage)
    assert bench_search.main(["--keys", "300", "--mapped", "300", "--repeats", "1"]) == 0
    printed = capsys.readouterr()
    assert "no room for 0.0 GB" in printed.err and "memory-mapped" not in printed.out
