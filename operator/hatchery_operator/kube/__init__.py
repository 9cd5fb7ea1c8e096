"""The Kubernetes side of the operator: API client, cache, resync, work queue and leader election.

Imported by `controller`, `progress` and `__main__`; imports only `domain`, `errors` and `settings`. Only `kube.client`
uses the Kubernetes client library.
"""

from hatchery_operator.kube.apply_once import ApplyOnce
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster, Credentials, kubeconfig_from_environment
from hatchery_operator.kube.crd_check import CrdCheck
from hatchery_operator.kube.events import Events
from hatchery_operator.kube.leader_election import Elector
from hatchery_operator.kube.resync import Resync
from hatchery_operator.kube.workqueue import SPACING_SECONDS, WorkQueue

__all__ = [
    "SPACING_SECONDS",
    "ApplyOnce",
    "Cache",
    "Cluster",
    "CrdCheck",
    "Credentials",
    "Elector",
    "Events",
    "Resync",
    "WorkQueue",
    "kubeconfig_from_environment",
]
