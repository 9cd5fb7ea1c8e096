"""Authentication of progress reports: verifies the pod's token locally and reads the pod's labels.

The API server publishes the keys by which it signs ServiceAccount tokens, readable by every ServiceAccount. Verifying
tokens by these keys needs neither a TokenReview request per report nor the ClusterRole that TokenReview requires.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt

from hatchery_operator.domain.progress_route import AUDIENCE
from hatchery_operator.errors import ApiError
from hatchery_operator.kube import Cluster
from hatchery_operator.progress.receiver import Identity

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
"""Path at which the API server publishes the issuer of its tokens."""

KEYS_PATH: Final = "/openid/v1/jwks"
"""Path at which it publishes the keys that verify them."""

FRESH_SECONDS: Final = 300.0
"""Lifetime of cached keys; a withdrawn key stops working after it."""

REFETCH_SECONDS: Final = 10.0
"""Minimum interval between fetches of the keys, so that forged tokens cannot load the API server."""

ALGORITHMS: Final = ("RS256", "ES256", "ES384", "ES512")
"""Signature algorithms of Kubernetes; whatever algorithm a token claims, no other is accepted."""

LEEWAY_SECONDS: Final = 10.0
"""Tolerated clock skew of the API server."""


class ProgressAccess:
    """Identifies pods for the progress endpoint."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._issuer = ""
        self._fetched = self._tried = -math.inf
        self._lock = asyncio.Lock()

    async def identify(self, token: str) -> Identity | None:
        """The pod of a token; None for a token that is not a pod's, has another audience, or is not valid now."""
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            return None if key is None else _identity(self._claims(token, key))
        except jwt.InvalidTokenError:
            return None

    async def _key(self, identifier: str) -> jwt.PyJWK | None:
        # one at a time, so that pods that start together share one fetch
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
        """Labels of a pod; None when it is gone, even if another pod has its name by now."""
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
