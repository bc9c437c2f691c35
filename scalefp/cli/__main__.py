"""``python -m scalefp.cli``."""

from scalefp.cli.door import main

if __name__ == "__main__":
    raise SystemExit(main())
