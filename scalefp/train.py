"""``python -m scalefp.train``, which ``torchrun -m scalefp.train`` runs: ``scalefp train``."""

import sys

from scalefp.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
