"""``scalefp serve``: from the command line to a listening service."""

import argparse
import json
import logging
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from scalefp.errors import UserError

TOKEN_VARIABLE = "SCALEFP_TOKEN"
MIN_TOKEN = 16  # characters


def read_token(file: str | None) -> str | None:
    """The bearer token from a file, else from the environment, else None.

    Never an argument: every user of the machine can read those.
    """
    # Taken out of the environment, so that no process started from here inherits it.
    variable = os.environ.pop(TOKEN_VARIABLE, None)
    if file is None and variable is None:
        return None
    where = TOKEN_VARIABLE if file is None else file
    try:
        text = variable if file is None else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{where} is not a text file: give a file that holds the token") from None
    token = (text or "").strip()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            f"the token in {where} must be at least {MIN_TOKEN} ASCII characters without spaces: "
            "make one by `openssl rand -hex 32`"
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host} port {port} ({why}): choose another --host or --port"
        ) from error


def show_url(url: str, *, as_json: bool) -> None:
    print(json.dumps({"url": url}) if as_json else url, flush=True)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        import uvicorn

        from scalefp.service.app import create_app
        from scalefp.service.connection import Connection
        from scalefp.service.guard import LOOPBACK
    except ImportError as error:
        raise UserError(
            f"the service needs packages that are not installed ({error.name}): "
            "pip install 'scalefp[service]'"
        ) from error
    import torch

    from scalefp.loading import load_serving
    from scalefp.registry import Registry, check_pair
    from scalefp.service.desk import Desk
    from scalefp.service.limits import MIB, Limits

    token, registry = read_token(args.token_file), Registry(args.registry, master=args.master)
    model = load_serving(args.model)
    if token is None:
        len(registry)  # a registry that is missing will not come into being: say so now
    check_pair(registry, model)
    limits = Limits(
        upload_bytes=args.max_mib * MIB,
        images=args.max_images,
        pixels=args.max_megapixels * 10**6,
        image_seconds=float(args.max_seconds),
        fpr=args.max_fpr,
        buffered_bytes=max(Limits.buffered_bytes, 2 * args.max_mib * MIB),
    )
    # One thread each: threads that share a busy core wait for each other.
    torch.set_num_threads(1)
    with listen(args.host, args.port) as listener:
        host = f"[{args.host}]" if ":" in args.host else args.host
        url = f"http://{host}:{listener.getsockname()[1]}"
        hosts: set[str] | None
        # Every way to write such an address (127.1, 127.0.0.2) leads only to this machine.
        if ip_address(listener.getsockname()[0]).is_loopback:
            hosts = {*LOOPBACK, host, listener.getsockname()[0], *args.allow_host}
        else:
            hosts = set(args.allow_host) or None
            print(
                "scalefp: reachable from other machines, without encryption and for everybody: "
                "put a proxy with TLS and log-in in front",
                file=sys.stderr,
            )
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
        )
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        desk = Desk(model, registry, limits, args.workers or os.cpu_count() or 1)
        app: Any = create_app(desk, token=token, hosts=hosts)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        show_url(url, as_json=args.json)
        uvicorn.Server(config).run(sockets=[listener])
    return 0
