"""How every command answers: exit codes, and results as text or JSON on standard output."""

import argparse
import json
from collections.abc import Iterable
from typing import Any

OK, NOBODY, MISTAKE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def show(args: argparse.Namespace, result: Any, lines: Iterable[str]) -> None:
    """Print ``result`` as JSON if ``--json`` was given, else the lines for a reader."""
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        for line in lines:
            print(line)
