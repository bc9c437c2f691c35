"""The arguments of ``scalefp registry``; what its actions do is in scalefp.registry_commands."""

import argparse
import re
from typing import Any

from scalefp import registry_commands as commands
from scalefp.arguments import add_command, add_list, add_options

MASTER = "file of the master secret from which all keys of this registry are derived"


def head(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("a head has 64 hexadecimal digits")
    return text.lower()


def add_registry_commands(to: Any) -> None:
    group = add_command(
        to, "registry", None, "issue, revoke, search, check and move keys",
        "scalefp registry list --registry keys.db",
    )  # fmt: skip
    actions = group.add_subparsers(required=True, dest="action", metavar="ACTION")
    add_making(actions)
    add_changing(actions)
    add_reading(actions)
    add_checking(actions)


def add_making(actions: Any) -> None:
    issue = add_command(
        actions, "issue", commands.run_issue, "make a new key for a holder and print it",
        "scalefp registry issue recipient-a --registry keys.db --model emoji\n"
        "  scalefp registry issue --holders names.txt --registry keys.db --model emoji",
    )  # fmt: skip
    add_options(issue, "registry", "model")
    add_list(issue, "holder", "HOLDER", "*", "name of the recipient")
    issue.add_argument(
        "--holders", metavar="FILE", help="text file of many holders, one a line: all, or none"
    )
    issue.add_argument("--master", metavar="FILE", help=f"{MASTER} (default: random keys)")
    rebuild = add_command(
        actions, "rebuild", commands.run_rebuild, "derive all keys of a lost registry again",
        "scalefp registry rebuild names.txt --registry new.db --model emoji --master master.key",
    )  # fmt: skip
    rebuild.add_argument(
        "holders", metavar="FILE",
        help="text file of the holders in order of issue, one a line and once for each key",
    )  # fmt: skip
    add_options(rebuild, "registry", "model")
    rebuild.add_argument("--master", required=True, metavar="FILE", help=MASTER)
    importing = add_command(
        actions, "import", commands.run_import, "add the keys in an exported file: all, or none",
        "scalefp registry import keys.jsonl --registry keys.db",
    )  # fmt: skip
    importing.add_argument("file", metavar="FILE", help="JSON Lines (.jsonl) or CSV (.csv)")
    add_options(importing, "registry")
    importing.add_argument("--master", metavar="FILE", help=f"{MASTER}, if they are")


def add_changing(actions: Any) -> None:
    revoke = add_command(
        actions, "revoke", commands.run_revoke, "revoke a holder's key; attribution still finds it",
        "scalefp registry revoke recipient-a --registry keys.db",
    )  # fmt: skip
    reinstate = add_command(
        actions, "reinstate", commands.run_reinstate, "make a holder's revoked key active again",
        "scalefp registry reinstate recipient-a --registry keys.db",
    )  # fmt: skip
    for parser in (revoke, reinstate):
        parser.add_argument("holder", metavar="HOLDER", help="name of the recipient")
        add_options(parser, "registry")


def add_reading(actions: Any) -> None:
    listing = add_command(
        actions, "list", commands.run_list, "list the holders of all keys ever issued",
        "scalefp registry list --registry keys.db --json",
    )  # fmt: skip
    add_options(listing, "registry")
    listing.add_argument(
        "--names", action="store_true", help="only the names, one a line: what rebuild reads"
    )
    showing = add_command(
        actions, "show", commands.run_show, "print every key ever issued to a holder",
        "scalefp registry show recipient-a --registry keys.db",
    )  # fmt: skip
    showing.add_argument("holder", metavar="HOLDER", help="name of the recipient")
    add_options(showing, "registry")
    search = add_command(
        actions, "search", commands.run_search, "list the keys of holders with a text in the name",
        "scalefp registry search recip --prefix --registry keys.db",
    )  # fmt: skip
    search.add_argument("text", metavar="TEXT", help="the case of a to z does not count")
    search.add_argument("--prefix", action="store_true", help="only names that begin with it")
    add_options(search, "registry")


def add_checking(actions: Any) -> None:
    log = add_command(
        actions, "log", commands.run_log, "print what was ever done, oldest first, without keys",
        "scalefp registry log --registry keys.db",
    )  # fmt: skip
    add_options(log, "registry")
    verify = add_command(
        actions, "verify", commands.run_verify, "check every key against the log and its chain",
        "scalefp registry verify --registry keys.db",
    )  # fmt: skip
    add_options(verify, "registry")
    verify.add_argument(
        "--head", type=head, metavar="HEX",
        help="head noted earlier, from a report or from verify: the log must go on from it",
    )  # fmt: skip
    export = add_command(
        actions, "export", commands.run_export, "write all keys and what happened to them",
        "scalefp registry export --registry keys.db --out keys.jsonl",
    )  # fmt: skip
    export.add_argument(
        "--out", required=True, metavar="FILE", help="JSON Lines (.jsonl) or CSV (.csv)"
    )
    add_options(export, "registry")
