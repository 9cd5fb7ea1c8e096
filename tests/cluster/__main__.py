"""`python -m tests.cluster`: start, stop and inspect the cluster; results go to standard output."""

import argparse
import json
import sys
from collections.abc import Callable

from tests.cluster.cluster import Cluster, status_text
from tests.cluster.errors import ClusterError
from tests.cluster.images import ensure_images, load, sizes_bytes
from tests.cluster.prometheus import ensure_prometheus
from tests.cluster.tools import ensure_tools


def _up(cluster: Cluster, arguments: argparse.Namespace) -> int:
    print(cluster.up(with_prometheus=arguments.prometheus))
    return 0


def _down(cluster: Cluster, arguments: argparse.Namespace) -> int:
    return 1 if cluster.down(purge=arguments.purge) else 0


def _status(cluster: Cluster, arguments: argparse.Namespace) -> int:
    status = cluster.status()
    if arguments.json:
        print(status_text(status))
    else:
        print("healthy" if status["healthy"] else "not healthy", status["kubeconfig"])
    return 0 if status["healthy"] else 1


def _kubeconfig(cluster: Cluster, _: argparse.Namespace) -> int:
    print(cluster.layout.kubeconfig)
    return 0


def _build(cluster: Cluster, _: argparse.Namespace) -> int:
    print(ensure_tools(cluster.layout))
    return 0


def _images(cluster: Cluster, _: argparse.Namespace) -> int:
    references = ensure_images(cluster.layout)
    sizes = sizes_bytes()
    rows = {name: {"reference": reference, "bytes": sizes[name]} for name, reference in references.items()}
    print(json.dumps(rows, indent=2))
    return 0


def _load(cluster: Cluster, arguments: argparse.Namespace) -> int:
    print(load(cluster.layout, arguments.image))
    return 0


def _recycle(cluster: Cluster, _: argparse.Namespace) -> int:
    print(cluster.recycle())
    return 0


def _prometheus(cluster: Cluster, _: argparse.Namespace) -> int:
    print(ensure_prometheus(cluster.layout).address)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[Cluster, argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    up = add("up", _up, "start or repair the cluster; prints the kubeconfig's path")
    up.add_argument("--prometheus", action="store_true", help="also run Prometheus on 127.0.0.1:9090")
    down = add("down", _down, "stop it and put the machine back as it was")
    down.add_argument("--purge", action="store_true", help="also remove the binaries and the image store")
    status = add("status", _status, "exit code 0 if it is healthy")
    status.add_argument("--json", action="store_true", help="print everything as JSON")
    add("kubeconfig", _kubeconfig, "print the kubeconfig's path")
    add("build", _build, "build the programs; prints their folder")
    add("images", _images, "build and push what changed; prints references and sizes")
    load = add("load", _load, "push an image of buildah's storage to the cluster's registry; prints its reference")
    load.add_argument("image")
    add("recycle", _recycle, "wipe the volumes of deleted claims; prints how many")
    add("prometheus", _prometheus, "start Prometheus beside the cluster; prints its address")
    return parser


def main() -> int:
    """Run one command; a ClusterError becomes one line and exit code 1."""
    arguments = _parser().parse_args()
    try:
        code: int = arguments.run(Cluster(), arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
