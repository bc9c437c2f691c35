"""The pages say what is there: files, functions, rooms, commands, links."""

import argparse
import ast
import configparser
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import scalefp
from scalefp.cli.door import build_parser
from scalefp.perturb import PERTURBATIONS
from tests.docs.pages import DOCS, FENCE, PAGES, REPORTS, ROOT, name_of

# `scalefp/FILE.py`, `scalefp/FILE.py:function`, `scalefp/FILE.py:Class.method`
NAMED = re.compile(r"`((?:scalefp|conf|tests|docs|experiments)/[^`:\s*]*)(?::([\w.]+))?`")

every_page = pytest.mark.parametrize("page", PAGES + REPORTS, ids=name_of)


def defined(source: str) -> set[str]:
    """Functions and classes of a module, methods as ``Class.method``."""

    def visit(node: ast.AST, prefix: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield prefix + child.name
                yield from visit(child, f"{prefix}{child.name}.")

    return set(visit(ast.parse(source), ""))


@every_page
def test_named_files_and_functions_exist(page: Path) -> None:
    for path, function in NAMED.findall(FENCE.sub("", page.read_text())):
        assert (ROOT / path).exists(), f"{path} does not exist"
        if function:
            assert function in defined((ROOT / path).read_text()), f"{path} has no {function}"


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if not re.match("https?:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_map_has_the_rooms_in_the_order_that_lint_enforces() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    layers = setup["importlinter:contract:rooms"]["layers"].split("\n")
    enforced = [line.replace("|", " ").split() for line in layers if line]
    section = (DOCS / "architecture.md").read_text().split("## ")[1]
    lines = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    assert [re.findall("`([^`]*)`", line) for line in lines] == enforced


def test_each_room_with_public_names_has_its_reference() -> None:
    for module in pkgutil.iter_modules(scalefp.__path__):
        if module.ispkg and module.name != "cli":
            public = getattr(import_module(f"scalefp.{module.name}"), "__all__", [])
            assert not public or (DOCS / "api" / f"{module.name}.md").exists(), module.name


def test_the_reference_names_what_import_scalefp_gives() -> None:
    named = set(re.findall(r"`scalefp\.(\w+)`", (DOCS / "api" / "index.md").read_text()))
    assert named == set(scalefp.__all__) - {"__version__"}


def subcommands(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                below = list(subcommands(sub))
                yield from (f"{name} {rest}" for rest in below)
                if not below:
                    yield name


def test_each_subcommand_is_in_the_table() -> None:
    text = (DOCS / "command-line.md").read_text()
    table = {
        f"{group} {name}".strip()
        for line in re.findall(r"^\| (`scalefp .*?) \|", text, re.MULTILINE)
        for first, *others in [re.findall("`([^`]*)`", line)]
        for group in [" ".join(first.split()[1:-1])]
        for name in [first.split()[-1], *others]
    }
    assert table == set(subcommands(build_parser()))


def test_each_perturbation_is_in_the_table() -> None:
    text = (DOCS / "perturbations.md").read_text().split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    assert {name for row in rows for name in re.findall("`([^`]*)`", row)} == set(PERTURBATIONS)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {scalefp.__version__}\n" in (ROOT / "CITATION.cff").read_text()
