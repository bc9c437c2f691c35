"""The command line: a parser, and one file for each group of subcommands."""

from scalefp.cli.door import main

__all__ = ["main"]
