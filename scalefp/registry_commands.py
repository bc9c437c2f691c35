"""What each action of ``scalefp registry`` does; its arguments are in scalefp.registry_arguments.

Keys are printed only where they are asked for. Networks are imported only where a release is
needed: the registry answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scalefp.commands import OK, show
from scalefp.errors import UserError

if TYPE_CHECKING:
    from scalefp.registry import Record, Registry


def opened(args: argparse.Namespace) -> Registry:
    from scalefp.registry import Registry

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
    from scalefp.holders import read_holders
    from scalefp.release import load

    if len(args.holder) + (args.holders is not None) != 1:
        raise UserError(
            "name one holder (in quotes, if the name has spaces), or a file of many by --holders"
        )
    registry = opened(args)
    if args.holders is not None:
        names = read_holders(args.holders)
        pairs = list(zip(names, registry.issue_many(names, load(args.model)), strict=True))
        result = [{"holder": holder, "key": str(key)} for holder, key in pairs]
        show(args, result, (f"{key}  {holder}" for holder, key in pairs))
        return OK
    registry.issue(args.holder[0], load(args.model))
    record = registry.show(args.holder[0])[-1]
    show(args, describe(record, secret=True), [str(record.key)])
    return OK


def run_rebuild(args: argparse.Namespace) -> int:
    from scalefp.holders import read_holders
    from scalefp.release import load

    registry, names = opened(args), read_holders(args.holders)
    count = len(registry.rebuild(names, load(args.model)))
    show(args, {"keys": count, "head": registry.head()}, [f"{count} keys rebuilt"])
    return OK


def run_import(args: argparse.Namespace) -> int:
    from scalefp.transfer import import_registry

    registry = opened(args)
    count = import_registry(registry, args.file)
    show(args, {"keys": count, "head": registry.head()}, [f"{count} keys imported"])
    return OK


# Changing keys.


def run_revoke(args: argparse.Namespace) -> int:
    record = opened(args).revoke(args.holder)
    show(args, describe(record, secret=False), [f"{record.holder}  {state(record)}"])
    return OK


def run_reinstate(args: argparse.Namespace) -> int:
    record = opened(args).reinstate(args.holder)
    show(args, describe(record, secret=False), [f"{record.holder}  {state(record)}"])
    return OK


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
    line = (
        f"intact: {verified.issued} keys agree with {verified.entries} entries of the log, "
        f"head {verified.head}"
    )
    show(args, verified._asdict(), [line])
    return OK


def run_export(args: argparse.Namespace) -> int:
    from scalefp.transfer import export_registry

    count = export_registry(opened(args), args.out)
    show(args, {"out": args.out, "lines": count}, [f"{args.out}: {count} lines"])
    return OK
