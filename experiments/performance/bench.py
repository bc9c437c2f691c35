"""``scalefp bench`` and the search among issued keys, into this folder.

python experiments/performance/bench.py [options of scalefp bench]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import search
from scalefp.cli.bench import add_bench_command, run

HERE = Path(__file__).parent
KEYS = 10_000_000  # searched in memory


def measure_search() -> dict[str, Any]:
    """The figures of search.py with their table."""
    figures = search.measure_search(repeats=3, keys=KEYS, mapped_keys=0)
    return figures | {"markdown": search.markdown(figures)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_bench_command(parser.add_subparsers())
    args = parser.parse_args(["bench", "--out", str(HERE), "--force", *sys.argv[1:]])
    return run(args, {"search": measure_search})


if __name__ == "__main__":
    sys.exit(main())
