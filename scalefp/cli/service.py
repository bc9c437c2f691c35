"""``scalefp serve``."""

from typing import Any

from scalefp.cli.arguments import (
    add_command,
    add_options,
    count,
    filled,
    port,
    probability,
    threads,
)
from scalefp.service import serve


def add_service_command(to: Any) -> None:
    parser = add_command(
        to, "serve", serve.run, "answer an investigator's browser and programs over HTTP",
        "scalefp serve --model emoji --registry keys.db\n"
        "  SCALEFP_TOKEN=$(openssl rand -hex 32) scalefp serve --model emoji --registry keys.db",
    )  # fmt: skip
    add_options(parser, "model", "registry")
    parser.add_argument(
        "--host", type=filled, default="127.0.0.1", help="address (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=port, default=8000, help="0 takes a free one; default 8000")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a host name under which a proxy is asked for the page; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--token-file", metavar="FILE",
        help=f"turn on issuing keys to who sends this token (or set {serve.TOKEN_VARIABLE})",
    )  # fmt: skip
    parser.add_argument(
        "--master", metavar="FILE", help="secret from which the keys of this registry are derived"
    )
    parser.add_argument(
        "--workers", type=threads, help="processes that decode (default: all cores)"
    )
    limits = {
        "max-mib": (32, "size of one request in MiB"),
        "max-images": (64, "images in one request"),
        "max-megapixels": (25, "size of one image"),
        "max-seconds": (10, "time to decode one image"),
    }
    parser.add_argument(
        "--max-fpr", type=probability, default=1e-3, metavar="P",
        help="greatest accepted probability of naming anybody wrongly (default: 1e-3)",
    )  # fmt: skip
    for name, (value, text) in limits.items():
        parser.add_argument(
            f"--{name}", type=count, default=value, metavar="N", help=f"{text} (default: {value})"
        )
