"""``python -m scalefp.evaluate``: ``scalefp evaluate``."""

import sys

from scalefp.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
