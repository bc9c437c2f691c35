"""A registry of a million keys on SQLite and PostgreSQL: time and memory of each thing done to it.

    .ci/with-postgresql python experiments/registry/registry_bench.py --out experiments/registry

Every step runs in a fresh process, one after the other. Without a PostgreSQL server (its URL in
SCALEFP_POSTGRESQL) SQLite alone is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from scalefp.attribution.evidence import Reading, attribute
from scalefp.experiment import Experiment, hardware, markdown_table
from scalefp.registry.exchange import export_registry, import_registry
from scalefp.registry.registry import Registry

MODEL: Any = SimpleNamespace(digest="ab" * 32, config=SimpleNamespace(n_bits=128))
TITLES = {
    "issue": "issue all in one bulk, random keys",
    "load": "read all keys for attribution",
    "follow": "bring them up to date after one more key",
    "attribute": "attribute one reading, keys in memory",
    "one": "issue one key",
    "find": "find one holder's key",
    "search": "search a text in all names",
    "verify": "verify all keys and the log",
    "export": "export (JSON Lines)",
    "import": "import that into a new registry",
    "derive": "issue all in one bulk, derived keys",
}


class Bench:
    """The steps, on one database; ``other`` is for the registries made from this one."""

    def __init__(self, place: str, other: str, folder: Path, count: int) -> None:
        self.place, self.other, self.folder, self.count = place, other, folder, count
        self.holders = [f"recipient-{number}" for number in range(count)]

    def timed(self, work: Callable[[], object]) -> dict[str, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}

    def issue(self) -> dict[str, float]:
        return self.timed(lambda: Registry(self.place).issue_many(self.holders, MODEL))

    def load(self) -> dict[str, float]:
        registry = Registry(self.place)
        times = self.timed(registry.keys_and_holders)
        issued = registry.keys_and_holders()
        if len(issued.holders) < self.count or issued.holders[-1] != self.holders[-1]:
            raise RuntimeError("the registry holds other keys than were issued")
        return times

    def follow(self) -> dict[str, float]:
        registry = Registry(self.place)
        registry.keys_and_holders()
        Registry(self.place).issue("one-more", MODEL)
        return self.timed(registry.keys_and_holders)

    def attribute(self) -> dict[str, float]:
        registry = Registry(self.place)
        key = registry.find(self.holders[self.count // 2])
        registry.keys_and_holders()
        reading = Reading(key.bits[None] - np.float64(0.5), MODEL.digest)
        named = attribute(reading, registry)
        if [found.key for found in named] != [key]:
            raise RuntimeError("the holder was not named")
        return self.timed(lambda: attribute(reading, registry))

    def one(self) -> dict[str, float]:
        return self.timed(lambda: Registry(self.place).issue("single", MODEL))

    def find(self) -> dict[str, float]:
        registry = Registry(self.place)
        registry.find(self.holders[0])  # connected
        return self.timed(lambda: registry.find(self.holders[-1]))

    def search(self) -> dict[str, float]:
        text = f"PIENT-{self.count - 1}"
        return self.timed(lambda: Registry(self.place).search(text))

    def verify(self) -> dict[str, float]:
        return self.timed(Registry(self.place).verify)

    def export(self) -> dict[str, float]:
        out = self.folder / "keys.jsonl"
        return self.timed(lambda: export_registry(Registry(self.place), out))

    def import_(self) -> dict[str, float]:
        source = self.folder / "keys.jsonl"
        return self.timed(lambda: import_registry(Registry(self.other), source))

    def derive(self) -> dict[str, float]:
        secret = self.folder / "master.key"
        secret.touch(0o600)
        secret.write_bytes(os.urandom(32))
        registry = Registry(self.folder / "derived.db", master=secret)
        return self.timed(lambda: registry.issue_many(self.holders, MODEL))


def run_step(name: str, place: str, other: str, folder: Path, count: int) -> dict[str, float]:
    bench = Bench(place, other, folder, count)
    result: dict[str, float] = getattr(bench, "import_" if name == "import" else name)()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result | {"peak_mib": peak}


def measure_step(name: str, place: str, other: str, folder: Path, count: int) -> dict[str, float]:
    """One step in a fresh process."""
    command = [sys.executable, __file__, "--count", str(count), "--step", name]
    command += ["--place", place, "--other", other, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def postgresql_schema(server: str) -> tuple[str, str]:
    """Name and URL of an empty schema."""
    import psycopg

    name = f"bench_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return name, f"{server}?options=-csearch_path%3D{name}"


def drop_schemas(server: str, names: Sequence[str]) -> None:
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        for name in names:
            connection.execute(f"DROP SCHEMA {name} CASCADE")


def markdown(results: dict[str, Any]) -> str:
    environment, databases = results["environment"], results["databases"]
    head = (
        f"{results['date']}, {environment['hardware']}, Python {environment['python']}; "
        f"{results['keys']:,} keys of 128 bits; load of the machine {environment['load']:.1f} at "
        "the start. Seconds on the clock, and of the processor in this process (a PostgreSQL "
        "server's own are not counted)."
    )
    columns = ["what"]
    for name in databases:
        columns += [f"{name}, s", "CPU, s", "peak, MiB"]
    rows = []
    for step, title in TITLES.items():
        cells = []
        for steps in databases.values():
            row = steps.get(step)
            if row is None:
                cells += ["", "", ""]
            else:
                cells += [f"{row['wall_s']:.3g}", f"{row['cpu_s']:.3g}", f"{row['peak_mib']:,.0f}"]
        rows.append([title, *cells])
    sizes = {name: steps["size_mib"] for name, steps in databases.items() if "size_mib" in steps}
    notes = "\n".join(f"The {name} file takes {size:,.0f} MiB." for name, size in sizes.items())
    table = markdown_table(columns, rows, right=range(1, len(columns)))
    return f"{head}\n\n{table}\n\n{notes}\n"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All steps, on every database that is there."""
    count = options.count
    databases: dict[str, dict[str, Any]] = {}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = {"SQLite": (str(folder / "keys.db"), str(folder / "imported.db"))}
        server, schemas = os.environ.get("SCALEFP_POSTGRESQL"), []
        if server is not None:
            made = [postgresql_schema(server) for _ in range(2)]
            schemas = [schema for schema, _ in made]
            places["PostgreSQL"] = (made[0][1], made[1][1])
        try:
            for database, (place, other) in places.items():
                steps = databases[database] = {}
                for step, title in TITLES.items():
                    if step == "derive" and database != "SQLite":
                        continue  # differs from "issue" in this process alone
                    print(f"{database}: {title}", file=sys.stderr, flush=True)
                    steps[step] = measure_step(step, place, other, folder, count)
                if database == "SQLite":
                    steps["size_mib"] = os.path.getsize(place) / 2**20
                (folder / "keys.jsonl").unlink()
        finally:
            if server is not None:
                drop_schemas(server, schemas)
    return {
        "keys": count,
        "environment": {
            "hardware": hardware(),
            "python": platform.python_version(),
            "load": load,
        },
        "databases": databases,
    }


EXPERIMENT = Experiment(Path(__file__).parent, measure, markdown)


def main() -> None:
    """Measure all databases, and write results and table; or do one step, as a child process."""
    parser = EXPERIMENT.parser("Time and memory of a large registry.", seeded=False)
    parser.add_argument("--count", type=int, default=1_000_000, help="keys (default: 10^6)")
    if "--step" not in sys.argv:
        EXPERIMENT.run(parser)
        return
    for name in ("step", "place", "other"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    where = options.place, options.other, options.folder
    print(json.dumps(run_step(options.step, *where, options.count)))


if __name__ == "__main__":
    main()
