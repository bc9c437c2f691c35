"""``scalefp registry``: issue, revoke, search, check and move keys.

Keys are printed only where they are asked for. Networks are imported only where a release is
needed: the registry answers at once.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scalefp.cli.arguments import add_command, add_list, add_options
from scalefp.cli.output import OK, say, show
from scalefp.cli.outputs import add_out, check_out, is_registry_export
from scalefp.errors import UserError
from scalefp.files import counted

if TYPE_CHECKING:
    from scalefp.registry import Record, Registry

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
        actions, "issue", run_issue, "make a new key for a holder and print it",
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
        actions, "rebuild", run_rebuild, "derive all keys of a lost registry again",
        "scalefp registry rebuild names.txt --registry new.db --model emoji --master master.key",
    )  # fmt: skip
    rebuild.add_argument(
        "holders", metavar="FILE",
        help="text file of the holders in order of issue, one a line and once for each key",
    )  # fmt: skip
    add_options(rebuild, "registry", "model")
    rebuild.add_argument("--master", required=True, metavar="FILE", help=MASTER)
    importing = add_command(
        actions, "import", run_import, "add the keys in an exported file: all, or none",
        "scalefp registry import keys.jsonl --registry keys.db",
    )  # fmt: skip
    importing.add_argument("file", metavar="FILE", help="JSON Lines (.jsonl) or CSV (.csv)")
    add_options(importing, "registry")
    importing.add_argument("--master", metavar="FILE", help=f"{MASTER}, if they are")


def add_changing(actions: Any) -> None:
    revoke = add_command(
        actions, "revoke", run_revoke, "revoke a holder's key; attribution still finds it",
        "scalefp registry revoke recipient-a --registry keys.db",
    )  # fmt: skip
    reinstate = add_command(
        actions, "reinstate", run_reinstate, "make a holder's revoked key active again",
        "scalefp registry reinstate recipient-a --registry keys.db",
    )  # fmt: skip
    for parser in (revoke, reinstate):
        parser.add_argument("holder", metavar="HOLDER", help="name of the recipient")
        add_options(parser, "registry")


def add_reading(actions: Any) -> None:
    listing = add_command(
        actions, "list", run_list, "list the holders of all keys ever issued",
        "scalefp registry list --registry keys.db --json",
    )  # fmt: skip
    add_options(listing, "registry")
    listing.add_argument(
        "--names", action="store_true", help="only the names, one a line: what rebuild reads"
    )
    showing = add_command(
        actions, "show", run_show, "print every key ever issued to a holder",
        "scalefp registry show recipient-a --registry keys.db",
    )  # fmt: skip
    showing.add_argument("holder", metavar="HOLDER", help="name of the recipient")
    add_options(showing, "registry")
    search = add_command(
        actions, "search", run_search, "list the keys of holders with a text in the name",
        "scalefp registry search recip --prefix --registry keys.db",
    )  # fmt: skip
    search.add_argument("text", metavar="TEXT", help="the case of a to z does not count")
    search.add_argument("--prefix", action="store_true", help="only names that begin with it")
    add_options(search, "registry")


def add_checking(actions: Any) -> None:
    log = add_command(
        actions, "log", run_log, "print what was ever done, oldest first, without keys",
        "scalefp registry log --registry keys.db",
    )  # fmt: skip
    add_options(log, "registry")
    verify = add_command(
        actions, "verify", run_verify, "check every key against the log and its chain",
        "scalefp registry verify --registry keys.db",
    )  # fmt: skip
    add_options(verify, "registry")
    verify.add_argument(
        "--head", type=head, metavar="HEX",
        help="head noted earlier, from a report or from verify: the log must go on from it",
    )  # fmt: skip
    export = add_command(
        actions, "export", run_export, "write all keys and what happened to them",
        "scalefp registry export --registry keys.db --out keys.jsonl",
    )  # fmt: skip
    add_out(export, "FILE", "JSON Lines (.jsonl) or CSV (.csv)")
    add_options(export, "registry")


# What the actions do.


def opened(args: argparse.Namespace) -> Registry:
    from scalefp.registry.registry import Registry

    return Registry(args.registry, master=getattr(args, "master", None))


def describe(record: Record, *, secret: bool) -> dict[str, Any]:
    """A record for JSON; the key only where the user asks for it."""
    return {
        "holder": record.holder,
        **({"key": str(record.key)} if secret else {}),
        "issued_at": record.issued_at,
        "revoked_at": record.revoked_at,
        "model_digest": record.model_digest,
    }


def state(record: Record) -> str:
    revoked = f"revoked {record.revoked_at}" if record.revoked_at else "active"
    return f"issued {record.issued_at}  {revoked}"


def show_states(args: argparse.Namespace, records: Sequence[Record]) -> int:
    """Print records without their keys."""
    width = max((len(record.holder) for record in records), default=0)
    lines = (f"{record.holder:<{width}}  {state(record)}" for record in records)
    show(args, [describe(record, secret=False) for record in records], lines)
    return OK


# Making keys.


def run_issue(args: argparse.Namespace) -> int:
    from scalefp.loading import load
    from scalefp.registry.holders import read_holders

    if len(args.holder) + (args.holders is not None) != 1:
        raise UserError(
            "name one holder (in quotes, if the name has spaces), or a file of many by --holders"
        )
    registry = opened(args)
    if args.holders is not None:
        names = read_holders(args.holders)
        pairs = list(zip(names, registry.issue_many(names, load(args.model)), strict=True))
        note = too_short(registry)
        result = [{"holder": holder, "key": str(key)} | note for holder, key in pairs]
        done = f"{counted(len(pairs), 'key')} issued and in the registry"
        show(args, result, (f"{key}  {holder}" for holder, key in pairs), done)
        return OK
    registry.issue(args.holder[0], load(args.model))
    note = too_short(registry)
    record = registry.show(args.holder[0])[-1]
    done = f"a key was issued to {record.holder} and is in the registry"
    show(args, describe(record, secret=True) | note, [str(record.key)], done)
    return OK


def too_short(registry: Registry) -> dict[str, str]:
    """The field ``never`` of JSON if no image can ever be attributed with keys so short and so
    many, which is also said on standard error; else nothing."""
    from scalefp.attribution.evidence import DEFAULT_FPR
    from scalefp.attribution.odds import why_never

    never = why_never(registry.n_bits or 0, len(registry), DEFAULT_FPR)
    if never is None:
        return {}
    say(never)
    return {"never": never}


def run_rebuild(args: argparse.Namespace) -> int:
    from scalefp.loading import load
    from scalefp.registry.holders import read_holders

    registry, names = opened(args), read_holders(args.holders)
    count = len(registry.rebuild(names, load(args.model)))
    done = f"{counted(count, 'key')} rebuilt"
    show(args, {"keys": count, "head": registry.head()}, [done], done)
    return OK


def run_import(args: argparse.Namespace) -> int:
    from scalefp.registry.exchange import import_registry

    registry = opened(args)
    count = import_registry(registry, args.file)
    done = f"{counted(count, 'key')} imported"
    show(args, {"keys": count, "head": registry.head()}, [done], done)
    return OK


# Changing keys.


def show_changed(args: argparse.Namespace, record: Record) -> int:
    line = f"{record.holder}  {state(record)}"
    show(args, describe(record, secret=False), [line], line)
    return OK


def run_revoke(args: argparse.Namespace) -> int:
    return show_changed(args, opened(args).revoke(args.holder))


def run_reinstate(args: argparse.Namespace) -> int:
    return show_changed(args, opened(args).reinstate(args.holder))


# Reading.


def run_list(args: argparse.Namespace) -> int:
    records = opened(args).list()
    if not args.names:
        return show_states(args, records)
    names = [record.holder for record in records]
    show(args, names, names)
    return OK


def run_show(args: argparse.Namespace) -> int:
    records = opened(args).show(args.holder)
    lines = (f"{record.key}  {state(record)}" for record in records)
    show(args, [describe(record, secret=True) for record in records], lines)
    return OK


def run_search(args: argparse.Namespace) -> int:
    return show_states(args, opened(args).search(args.text, prefix=args.prefix))


# Checking and keeping.


def run_log(args: argparse.Namespace) -> int:
    entries = opened(args).log()
    lines = (f"{e.seq}  {e.at}  {e.action}  {e.holder or ''}".rstrip() for e in entries)
    show(args, [entry._asdict() for entry in entries], lines)
    return OK


def run_verify(args: argparse.Namespace) -> int:
    verified = opened(args).verify(args.head)
    agree = "agrees" if verified.issued == 1 else "agree"
    line = (
        f"intact: {counted(verified.issued, 'key')} {agree} "
        f"with {counted(verified.entries, 'entry', 'entries')} of the log, head {verified.head}"
    )
    show(args, verified._asdict(), [line])
    return OK


def run_export(args: argparse.Namespace) -> int:
    from scalefp.registry.exchange import export_registry

    check_out(args.out, "an export of a registry", is_registry_export, force=args.force)
    count = export_registry(opened(args), args.out, overwrite=args.force)
    done = f"{args.out}: {counted(count, 'line')}"
    show(args, {"out": args.out, "lines": count}, [done], done)
    return OK
