"""How fast every issued key is searched, beside reading the keys once from memory.

    python experiments/performance/search.py [--keys 10000000] [--mapped 100000000]

Imports no torch. The yardstick, in turn with the searches: all keys summed up, as machine words,
by numpy. Every search must find the key that was hidden among the others.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalefp.attribution.evidence import Form, matches_needed, soft_weights
from scalefp.attribution.search import Query, runners_up, search
from scalefp.attribution.tails import weighted_tail
from scalefp.experiment import markdown_table

FPR = 1e-6
BATCH = 32
BLOCK = 1 << 20  # keys drawn and written at a time
Keys = NDArray[np.uint8]  # packed [N, w]


class Wanted(NamedTuple):
    """A query, the score that names a key, and where its owner is."""

    query: Query
    threshold: int
    owner: int


def read_once(packed: Keys) -> int:
    """Every key, from memory to the processor: what no search can do without."""
    return int(packed.reshape(-1).view(np.uint64).sum())


def reading_of(packed: Keys, owner: int, form: Form, rng: np.random.Generator) -> Wanted:
    """A reading of this key with about 9 bits in 10 right, the sure ones rather than the others."""
    key = np.unpackbits(packed[owner])
    logits = 2.0 * key - 1 + rng.normal(scale=0.8, size=key.size)
    bits = (logits > 0).astype(np.uint8)
    if form == "hard":
        threshold = matches_needed(key.size, len(packed), FPR)
        assert threshold is not None
        return Wanted(Query(bits, np.ones(key.size, np.int64)), threshold, owner)
    weights = soft_weights(logits[None])[0]
    too_common = len(packed) * weighted_tail(weights) > FPR
    return Wanted(Query(bits, weights), int(too_common.sum()), owner)


def find(wanted: Sequence[Wanted], packed: Keys) -> None:
    """Search for all of them in one pass, and see that each is there and alone."""
    found = search([one.query for one in wanted], packed, [one.threshold for one in wanted])
    for one, answer in zip(wanted, found, strict=True):
        if answer.indices.tolist() != [one.owner]:
            raise AssertionError(f"searched for key {one.owner}, found {answer.indices.tolist()}")


def in_turn(tasks: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Seconds of each task, [task][repeat], taken in turn; a first round warms up."""
    seconds: list[list[float]] = [[] for _ in tasks]
    for _ in range(repeats + 1):
        gc.collect()
        for task, record in zip(tasks, seconds, strict=True):
            begun = time.perf_counter()
            task()
            record.append(time.perf_counter() - begun)
    return [record[1:] for record in seconds]


def peak_mebibytes(task: Callable[[], Any]) -> float:
    """Most memory that a task held at once beside the keys, MiB."""
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def searches(packed: Keys, rng: np.random.Generator) -> list[tuple[str, int, Callable[[], Any]]]:
    """What is measured: (name, queries, task)."""
    wanted: dict[Form, list[Wanted]] = {
        form: [reading_of(packed, int(i), form, rng) for i in rng.integers(len(packed), size=BATCH)]
        for form in ("hard", "soft")
    }
    tasks: list[tuple[str, int, Callable[[], Any]]] = []
    for form, batch in wanted.items():
        tasks += [
            (f"{form}, one query", 1, partial(find, batch[:1], packed)),
            (f"{form}, {BATCH} queries", BATCH, partial(find, batch, packed)),
        ]
    query, threshold, _ = wanted["soft"][0]
    name = "soft, best key but the named"
    tasks.append((name, 1, partial(runners_up, [query], packed, [threshold])))
    return tasks


def measure_keys(packed: Keys, repeats: int, rng: np.random.Generator) -> dict[str, Any]:
    """Every search of these keys, each beside reading them once."""
    tasks = searches(packed, rng)
    read, *rest = in_turn([lambda: read_once(packed), *(task for *_, task in tasks)], repeats)
    rows = []
    for (name, queries, task), seconds in zip(tasks, rest, strict=True):
        each = [one / queries for one in seconds]
        rows.append(
            {
                "what": name,
                "milliseconds_per_query": 1000 * statistics.median(each),
                "fastest": 1000 * min(each),
                "slowest": 1000 * max(each),
                # Of the fastest: whatever else the machine does can only add to either.
                "times_reading_once": min(each) / min(read),
                "peak_mib": peak_mebibytes(task),
            }
        )
    return {
        "keys": len(packed),
        "mib": packed.nbytes / 2**20,
        "read_once_milliseconds": 1000 * min(read),
        "gb_per_second": packed.nbytes / min(read) / 1e9,
        "rows": rows,
    }


def draw_keys(count: int, width: int, rng: np.random.Generator) -> Keys:
    return rng.integers(0, 256, (count, width), dtype=np.uint8)


def measure_mapped(
    count: int, width: int, repeats: int, rng: np.random.Generator
) -> dict[str, Any] | None:
    """The same with keys in a temporary memory-mapped file; None where the disk is too full."""
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < 2 * count * width:
            print(f"search: no room for {count * width / 1e9:.1f} GB on disk", file=sys.stderr)
            return None
        path = Path(folder) / "keys"
        with path.open("wb") as file:
            for start in range(0, count, BLOCK):
                draw_keys(min(BLOCK, count - start), width, rng).tofile(file)
        mapped: Keys = np.memmap(path, np.uint8, "r", shape=(count, width))
        return measure_keys(mapped, repeats, rng)


def measure_search(
    repeats: int = 7,
    keys: int = 10_000_000,
    mapped_keys: int = 100_000_000,
    n_bits: int = 128,
    seed: int = 0,
) -> dict[str, Any]:
    """Searches of keys in memory, and of more keys in a memory-mapped file.

    Args:
        repeats: rounds, in each of which everything is timed once.
        keys: number of keys in memory, n_bits / 8 bytes each.
        mapped_keys: number of keys in the file; 0 leaves it out.
        n_bits: a multiple of 64.

    Returns:
        {"n_bits", "fpr", "repeats", "seed", "memory": figures, "file": figures or None}; figures
        are the number of keys, MiB, reading them once at the fastest (ms, GB/s), and rows of what
        was searched: milliseconds a query (median, fastest, slowest), the fastest as a multiple of
        reading the keys once, and the peak of memory beside the keys in MiB.
    """
    rng, width = np.random.default_rng(seed), n_bits // 8
    in_memory = measure_keys(draw_keys(keys, width, rng), repeats, rng)
    in_file = measure_mapped(mapped_keys, width, min(repeats, 3), rng) if mapped_keys else None
    settings = {"n_bits": n_bits, "fpr": FPR, "repeats": repeats, "seed": seed}
    return {**settings, "memory": in_memory, "file": in_file}


def markdown(results: dict[str, Any]) -> str:
    """The figures as tables."""
    lines = []
    for place in ("memory", "file"):
        part = results[place]
        if part is None:
            continue
        where = "in memory" if place == "memory" else "in a memory-mapped file"
        lines += [
            f"{part['keys']:,} keys of {results['n_bits']} bits {where} ({part['mib']:,.0f} MiB); "
            f"reading them once takes {part['read_once_milliseconds']:.1f} ms "
            f"({part['gb_per_second']:.1f} GB/s).",
            "",
        ]
        head = ["search", "ms a query", "fastest to slowest", "times reading once"]
        rows = [
            [
                row["what"],
                f"{row['milliseconds_per_query']:.1f}",
                f"{row['fastest']:.1f} to {row['slowest']:.1f}",
                f"{row['times_reading_once']:.1f}",
                f"{row['peak_mib']:.1f}",
            ]
            for row in part["rows"]
        ]
        lines += [markdown_table([*head, "peak memory, MiB"], rows, right={1, 3, 4}), ""]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Speed and memory of searching issued keys.")
    parser.add_argument("--keys", type=int, default=10_000_000, help="keys in memory")
    parser.add_argument("--mapped", type=int, default=100_000_000, help="keys in a file; 0: none")
    parser.add_argument("--bits", type=int, default=128, help="a multiple of 64")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    if options.keys < 1 or options.mapped < 0 or options.repeats < 1:
        parser.error("--keys and --repeats are at least 1, --mapped at least 0")
    if options.bits < 64 or options.bits > 512 or options.bits % 64:
        parser.error("--bits is a multiple of 64 from 64 to 512")
    results = measure_search(options.repeats, options.keys, options.mapped, options.bits)
    print(markdown(results), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
