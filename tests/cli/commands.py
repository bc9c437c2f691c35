"""Every command of the parser, for tests that must leave none out."""

from typing import Any

from scalefp.cli.door import build_parser


def parsers() -> dict[tuple[str, ...], Any]:
    """The parser of every command and every action by its words, found in the parser itself."""
    found: dict[tuple[str, ...], Any] = {}

    def visit(parser: Any, path: tuple[str, ...]) -> None:
        found[path] = parser
        for action in parser._actions:
            if isinstance(action.choices, dict):
                for name, child in action.choices.items():
                    visit(child, (*path, name))

    visit(build_parser(), ())
    return found


def subcommands() -> list[list[str]]:
    """The words of every command and every action; none for the whole."""
    return [list(path) for path in parsers()]
