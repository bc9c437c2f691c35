"""``python -m scalefp``: the same as the command ``scalefp``."""

from scalefp.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
