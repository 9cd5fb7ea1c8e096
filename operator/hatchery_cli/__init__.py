"""The `hatchery` command: it reads runs through the user's kubeconfig and shows them.

It imports the API and never the operator or the jobs. Nothing of the product imports it; the demo and tests do.

- `app`: the commands and their options; `client`: the cluster, and its errors in plain words.
- `views`: what a run looks like, whatever its kind; `render`: tables, lines and failure cards of views.
- `watch` and `summary`: the two commands that are more than one table; `curve`: the loss curve.
"""

from hatchery_cli.app import console, show_summary
from hatchery_cli.client import KubeCluster
from hatchery_cli.curve import read_from_hub
from hatchery_cli.errors import CommandError, Exit
from hatchery_cli.views import RunView, chosen
from hatchery_cli.watch import Watch, live_view

__all__ = [
    "CommandError",
    "Exit",
    "KubeCluster",
    "RunView",
    "Watch",
    "chosen",
    "console",
    "live_view",
    "read_from_hub",
    "show_summary",
]
