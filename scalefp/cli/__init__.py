"""The command line: a parser, one file for each group of subcommands, and how they end."""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of this process, and return its exit code."""
    # Everything is imported within, so that Ctrl-C meanwhile is answered like any other.
    try:
        from scalefp.cli.interruption import interruption

        with interruption(process=argv is None) as signals:
            from scalefp.cli.ending import ended

            def answer() -> int:
                from scalefp.cli.door import run

                return run(argv)

            return ended(answer, signals)
    except KeyboardInterrupt:
        return 130
