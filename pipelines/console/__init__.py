"""Pages for people, in a browser: an advertiser's forecast, what moved, who may leave, totals, accuracy, operations.

Reads the tables through their Iceberg snapshots and writes nothing: a home that cannot be written to will do. Listens
on this machine alone unless --address says otherwise, and asks nobody for a password: put a proxy with a log-in before
it (docs/console.md). --date is the day that the pages begin with (default: the newest forecast's).
Fails (2) on wrong use, where Streamlit is not installed, or the port is taken. Tables that are not there yet are said
on the pages.
"""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path

from pipelines.cli import config_of, count, stage_parser
from pipelines.errors import ConfigError

# Nothing is sent to anyone, nothing is fetched from anywhere, nothing is offered but the pages.
SETTINGS = {
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.enableStaticServing": False,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "runner.magicEnabled": False,
    "theme.base": "light",
}

HERE, EVERYWHERE = ("localhost", "127.0.0.1", "::1"), {"0.0.0.0", "::"}


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--port", type=count(65535), default=8501, help="port of the pages (default 8501)")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--host", action="append", default=[], help="name by which a proxy asks for it; may stand several times"
    )
    parser.add_argument("--base-path", default="", help="path below which a proxy serves the pages, such as /m2m")
    arguments = parser.parse_args(argv)
    config = config_of(arguments)
    if arguments.address in EVERYWHERE and not arguments.host:
        raise ConfigError(f"--address {arguments.address}: say with --host by which names people may reach it")
    if not find_spec("streamlit"):
        raise ConfigError("the console needs Streamlit: pip install 'm2m-forecasting[console]'")
    with socket.socket(socket.AF_INET6 if ":" in arguments.address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((arguments.address, arguments.port))
        except OSError as error:
            raise ConfigError(
                f"--port {arguments.port} on {arguments.address}: {error.strerror}; name another"
            ) from None
    os.environ["M2M_CONFIG"] = str(config.path)
    os.environ["M2M_CONSOLE_DATE"] = str(arguments.date or "")
    # Else a page from elsewhere, whose name is made to lead here, could read all that a person here sees.
    hosts = [*HERE, *({arguments.address} - EVERYWHERE), *arguments.host]
    serve(arguments.address, arguments.port, arguments.base_path, hosts)


def serve(address: str, port: int, base_path: str, hosts: list[str]) -> None:
    """The pages, until the process is told to end."""
    from streamlit.web import bootstrap

    place = {"server.address": address, "server.port": port, "server.baseUrlPath": base_path.strip("/")}
    options = SETTINGS | place | {"server.allowedHosts": hosts}
    print(f"console: http://{address}:{port}/{options['server.baseUrlPath']}    Ctrl-C stops it", flush=True)
    named = {key.replace(".", "_"): value for key, value in options.items()}
    bootstrap.load_config_options(named)
    bootstrap.run(str(Path(__file__).with_name("app.py")), False, [], named)
