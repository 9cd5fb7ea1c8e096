"""Starts the server: `python -m hub_server --root DIR --port N --token T`, or `python FOLDER` from a flat mount."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any


def _package() -> Any:
    """This package, also where its folder has another name and is not on the path (a mounted ConfigMap)."""
    if __package__:
        return importlib.import_module(__package__)
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(
        "hub_server", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["hub_server"] = package
    spec.loader.exec_module(package)
    return package


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hub_server", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder that holds everything")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 in a pod")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--token", action="append", default=[], help="a token that can write; may be repeated")
    parser.add_argument("--token-file", type=Path, help="a file with one such token, for example a mounted Secret")
    parser.add_argument("--read-token", action="append", default=[], help="a token that can only read")
    parser.add_argument("--user", default="hatchery", help="who the tokens belong to")
    parser.add_argument("--namespace", action="append", help="where repositories may be made; default: anywhere")
    parser.add_argument("--part-bytes", type=int, help="ask for larger uploads in parts of this size")
    parser.add_argument("--verbose", action="store_true", help="log every request")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Serves until interrupted."""
    options = _arguments(argv)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    tokens = list(options.token)
    if options.token_file:
        tokens.append(options.token_file.read_text().strip())
    server = _package().HubServer(
        options.root,
        tokens=tuple(tokens),
        read_tokens=tuple(options.read_token),
        user=options.user,
        namespaces=frozenset(options.namespace) if options.namespace else None,
        host=options.host,
        port=options.port,
        part_bytes=options.part_bytes,
    )
    print(f"Hub at {server.url}, files in {options.root}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
