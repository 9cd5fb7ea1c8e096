"""What the progress endpoint asks the API server: whose a token is, and which labels a pod has."""

from collections.abc import Mapping
from typing import Final

from hatchery_operator.cluster import PODS, Cluster
from hatchery_operator.progress import Identity
from hatchery_operator.progress_route import AUDIENCE

_ACCOUNT: Final = "system:serviceaccount:"
_POD: Final = "authentication.kubernetes.io/pod-"


class ProgressAccess:
    """Answers for the progress endpoint, from the API server."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def review(self, token: str) -> Identity | None:
        """Whose a token is; None for one that is no pod's, or not for us."""
        status = await self._cluster.review_token(token, AUDIENCE)
        user = status.get("user", {})
        extra, name = user.get("extra", {}), str(user.get("username", ""))
        pod_name, pod_uid = extra.get(f"{_POD}name", []), extra.get(f"{_POD}uid", [])
        is_ours = status.get("authenticated") and AUDIENCE in status.get("audiences", [])
        if not is_ours or not name.startswith(_ACCOUNT) or not pod_name or not pod_uid:
            return None
        namespace = name.removeprefix(_ACCOUNT).partition(":")[0]
        return Identity(pod_name=pod_name[0], pod_uid=pod_uid[0], namespace=namespace)

    async def pod_labels(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Labels of a pod; None when there is no such pod."""
        pod = await self._cluster.get(PODS, namespace, name)
        return None if pod is None else dict(pod["metadata"].get("labels", {}))
