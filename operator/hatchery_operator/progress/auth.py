"""Whose token it is, by its signature alone, and which labels the pod has.

The API server publishes the keys that it signs ServiceAccount tokens with, readable by every ServiceAccount. A token is
verified here without a question to the API server, which a TokenReview would be, and which needs a ClusterRole.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt

from hatchery_operator.domain.labels import AUDIENCE
from hatchery_operator.errors import ApiError
from hatchery_operator.kube.client import Cluster
from hatchery_operator.progress.receiver import Identity

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
"""Where the API server says who issues its tokens."""

KEYS_PATH: Final = "/openid/v1/jwks"
"""Where it publishes the keys they are signed with."""

FRESH_SECONDS: Final = 300.0
"""How long keys are believed, so that one that was withdrawn stops working."""

REFETCH_SECONDS: Final = 10.0
"""Shortest time between two readings of the keys, so that invented tokens cannot load the API server."""

ALGORITHMS: Final = ("RS256", "ES256", "ES384", "ES512")
"""Signatures that Kubernetes makes; nothing else is tried, whatever a token says of itself."""

LEEWAY_SECONDS: Final = 10.0
"""How far the clock of the API server may be off."""


class ProgressAccess:
    """Answers for the progress endpoint."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._issuer = ""
        self._fetched = self._tried = -math.inf
        self._lock = asyncio.Lock()

    async def identify(self, token: str) -> Identity | None:
        """Whose a token is; None for one that is no pod's, not for us, or not valid now."""
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            return None if key is None else _identity(self._claims(token, key))
        except jwt.InvalidTokenError:
            return None

    async def _key(self, identifier: str) -> jwt.PyJWK | None:
        # one at a time, so that of many pods that start at once all wait for the same answer
        async with self._lock:
            if self._is_due(identifier):
                self._tried = self._clock()
                try:
                    await self._fetch()
                except ApiError:
                    if identifier not in self._keys:
                        raise
        return self._keys.get(identifier)

    def _is_due(self, identifier: str) -> bool:
        now = self._clock()
        is_fresh = identifier in self._keys and now - self._fetched < FRESH_SECONDS
        return not is_fresh and now - self._tried > REFETCH_SECONDS

    async def _fetch(self) -> None:
        discovered = await self._cluster.read(DISCOVERY_PATH)
        published = await self._cluster.read(KEYS_PATH)
        self._issuer = str(discovered["issuer"])
        self._keys = {str(key.key_id): key for key in jwt.PyJWKSet.from_dict(published).keys}
        self._fetched = self._clock()

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=AUDIENCE,
            issuer=self._issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iss", "aud", "kubernetes.io"]},
        )
        return claims

    async def pod_labels(self, identity: Identity) -> Mapping[str, str] | None:
        """Labels of a pod; None when it is gone, also if another one has its name by now."""
        pod = await self._cluster.get("Pod", identity.namespace, identity.pod_name)
        if pod is None or pod["metadata"]["uid"] != identity.pod_uid:
            return None
        return dict(pod["metadata"].get("labels", {}))


def _identity(claims: Mapping[str, Any]) -> Identity | None:
    bound = claims["kubernetes.io"]
    match bound:
        case {"namespace": str(namespace), "pod": {"name": str(name), "uid": str(uid)}}:
            return Identity(pod_name=name, pod_uid=uid, namespace=namespace)
    return None
