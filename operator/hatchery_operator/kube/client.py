"""The API server client: the only module that sends requests to it.

It uses only configuration, login and transport of the `kubernetes` package, never its generated models
(docs/decisions/0002-api-client.md has the figures). Objects are plain dictionaries, as in manifests.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from hatchery_api.base import GROUP, VERSION
from hatchery_api.kinds import KINDS
from hatchery_operator.domain.labels import MANAGER
from hatchery_operator.domain.objects import Manifest
from hatchery_operator.errors import ApiError, ConflictError, GoneError, UnreachableError, api_error

PAGE_OBJECTS: Final = 100
"""Objects per page of a list request."""

REQUEST_SECONDS: Final = 30.0
"""Request timeout."""

RETRIES: Final = 4
"""Most retries of a request when the server asks for them."""

DEFAULT_RETRY_AFTER_SECONDS: Final = 1.0
"""Delay before a retry when the server gives no `Retry-After`."""

LONGEST_RETRY_AFTER_SECONDS: Final = 30.0
"""Longest `Retry-After` waited for within a request; the work queue honours a longer one."""

_JSON = "application/json"
_UNAUTHORIZED, _TOO_MANY = 401, 429


@dataclass(frozen=True)
class ResourceType:
    """Group, version and names of a type."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """`apiVersion` of the objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of the collection, of an object, or of its subresource."""
        prefix = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [f"/namespaces/{quote(namespace)}" if namespace else "", f"/{self.plural}"]
        parts += [f"/{quote(part)}" for part in (name, subresource) if part]
        return prefix + "".join(parts)


TYPES: Final = {
    one.kind: one
    for one in (
        ResourceType("batch", "v1", "jobs", "Job"),
        ResourceType("", "v1", "pods", "Pod"),
        ResourceType("", "v1", "services", "Service"),
        ResourceType("", "v1", "configmaps", "ConfigMap"),
        ResourceType("", "v1", "events", "Event"),
        ResourceType("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
        ResourceType("coordination.k8s.io", "v1", "leases", "Lease"),
        *(ResourceType(GROUP, VERSION, kind.plural, kind.kind) for kind in KINDS),
    )
}
"""Every type the operator reads or writes, by kind."""


@dataclass(frozen=True)
class Credentials:
    """Address and credentials of the API server, for kopf's own connections."""

    server: str
    ca_path: str | None
    insecure: bool
    token: str | None
    certificate_path: str | None
    private_key_path: str | None


Observer = Callable[[str, int], None]
"""Receives verb and status code of every response; code 0 stands for no response."""

WriteGuard = Callable[[], float]
"""Timeout for a write that starts now; raises `NotLeaderError` when none may start."""


class Cluster:
    """Requests to the API server, with login, retries and an error class per kind of failure.

    Writes are fenced: each first asks the guard, so that only the leading replica writes. A write that every replica
    may make passes `fenced=False`.
    """

    def __init__(
        self,
        kubeconfig: Path | None,
        clock: Callable[[], float],
        observe: Observer,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`kubeconfig` is for an operator outside the cluster; None uses the pod's ServiceAccount."""
        self._kubeconfig = kubeconfig
        self._clock = clock
        self._observe = observe
        self._sleep = sleep
        self._configuration: Any = None
        self._transport: Any = None
        self._retired: Any = None
        self._login_lock = asyncio.Lock()
        self.guard: WriteGuard = lambda: REQUEST_SECONDS
        self.last_success = clock()

    async def credentials(self) -> Credentials:
        """Reads the credentials afresh for kopf's own connections; those of this client do not change."""
        configuration = await self._configure()
        authorization = await configuration.get_api_key_with_prefix("BearerToken")
        return Credentials(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            token=authorization.split(" ", 1)[-1].strip() if authorization else None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )

    async def _configure(self) -> Any:
        configuration = Configuration()
        if self._kubeconfig:
            await load_kube_config(config_file=str(self._kubeconfig), client_configuration=configuration)
        else:
            load_incluster_config(client_configuration=configuration)
        # otherwise each request starts two threads that look for a .netrc and proxies, which kopf does not use either
        configuration.client_session_kwargs = {"trust_env": False}
        return configuration

    async def _login(self, rejected: Any) -> None:
        """Reads the credentials afresh, unless another request has done so since the server rejected this one's."""
        async with self._login_lock:
            if self._transport is not rejected:
                return
            self._configuration = await self._configure()
            # open requests finish on the old connections, so these are closed one login later
            self._transport, retired, self._retired = RESTClientObject(self._configuration), self._retired, rejected
            if retired is not None:
                await retired.close()

    async def close(self) -> None:
        """Closes the connections."""
        for transport in (self._transport, self._retired):
            if transport is not None:
                await transport.close()

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """An object; None when it does not exist."""
        try:
            return await self._request("GET", TYPES[kind].path(namespace, name))
        except GoneError:
            return None

    async def list(
        self, kind: str, namespace: str | None, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Manifest]:
        """Lists objects of one namespace or of all; paged, so that memory does not grow with their number."""
        resource = TYPES[kind]
        query = {"limit": str(PAGE_OBJECTS), "labelSelector": labels, "fieldSelector": fields}
        while True:
            parameters = urlencode({k: v for k, v in query.items() if v})
            page = await self._request("GET", f"{resource.path(namespace)}?{parameters}")
            for item in page["items"]:
                # list items carry neither apiVersion nor kind
                yield {**item, "apiVersion": resource.api_version, "kind": kind}
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return

    async def create(self, manifest: Manifest, *, fenced: bool = True) -> Manifest:
        """Creates an object; never changes an existing one."""
        path = TYPES[manifest["kind"]].path(manifest["metadata"]["namespace"])
        return await self._request("POST", f"{path}?fieldManager={MANAGER}", manifest, fenced=fenced)

    async def replace(
        self, manifest: Manifest, manager: str = MANAGER, subresource: str | None = None, *, fenced: bool = True
    ) -> Manifest:
        """Replaces an object or its status if it still has the manifest's resourceVersion."""
        path = f"{_path(manifest, subresource)}?fieldManager={manager}"
        return await self._request("PUT", path, manifest, fenced=fenced)

    async def merge(self, manifest: Manifest) -> Manifest:
        """Merges fields into an object; a field that is None is removed."""
        path = f"{_path(manifest)}?fieldManager={MANAGER}"
        return await self._request("PATCH", path, manifest, "application/merge-patch+json")

    async def apply(
        self, manifest: Manifest, manager: str = MANAGER, subresource: str | None = None, *, fenced: bool = True
    ) -> Manifest:
        """Server-side-applies an object as one field manager; with a resourceVersion, only to that version."""
        path = f"{_path(manifest, subresource)}?fieldManager={manager}&force=true"
        return await self._request("PATCH", path, manifest, "application/apply-patch+yaml", fenced=fenced)

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str | None = None, *, foreground: bool = False
    ) -> Manifest | None:
        """Deletes an object and its dependents; ignores an object that is gone or has another UID.

        Foreground deletion returns the object, which stays with a deletionTimestamp until its dependents are gone.
        """
        policy = "Foreground" if foreground else "Background"
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            deleted = await self._request("DELETE", TYPES[kind].path(namespace, name), options)
        except (GoneError, ConflictError):
            return None
        return deleted if deleted.get("kind") == kind else None

    async def read(self, path: str) -> Manifest:
        """Reads a document that the API server publishes, such as its OpenAPI schemas."""
        return await self._request("GET", path)

    async def ping(self) -> None:
        """Verifies that the server responds and still accepts the credentials."""
        await self._request("GET", "/version")

    async def _request(
        self, verb: str, path: str, body: Manifest | None = None, media: str = _JSON, *, fenced: bool = True
    ) -> Manifest:
        for attempt in range(RETRIES + 1):
            transport = self._transport
            try:
                return await self._once(verb, path, body, media, fenced=fenced and verb != "GET")
            except ApiError as error:
                wait = self._wait_before_retry(error)
                if wait is None or attempt == RETRIES:
                    raise
                if error.status == _UNAUTHORIZED:
                    await self._login(transport)
                await self._sleep(wait)
        raise AssertionError("the loop returns or raises")

    @staticmethod
    def _wait_before_retry(error: ApiError) -> float | None:
        if error.status == _UNAUTHORIZED:
            return DEFAULT_RETRY_AFTER_SECONDS
        if error.status == _TOO_MANY or error.retry_after_seconds is not None:
            wanted = error.retry_after_seconds or DEFAULT_RETRY_AFTER_SECONDS
            return wanted if wanted <= LONGEST_RETRY_AFTER_SECONDS else None
        return None

    async def _once(self, verb: str, path: str, body: Manifest | None, media: str, *, fenced: bool) -> Manifest:
        action = f"{verb} {path.partition('?')[0]}"
        if self._transport is None:
            await self._login(None)
        # any JSON media type: the published keys have one of their own
        headers = {"Content-Type": media, "Accept": "application/json, */*"}
        if authorization := await self._configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = authorization.strip()
        # last, since everything before may have taken time
        seconds = min(REQUEST_SECONDS, self.guard()) if fenced else REQUEST_SECONDS
        try:
            response = await self._transport.request(
                verb, self._configuration.host + path, headers=headers, body=body, _request_timeout=seconds
            )
            data = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._observe(verb, 0)
            raise UnreachableError(action, f"no answer: {type(error).__name__} {error}".strip()) from error
        self._observe(verb, response.status)
        if response.status >= 400:  # noqa: PLR2004 - HTTP's first error status
            raise api_error(action, response.status, response.headers, data)
        try:
            manifest: Manifest = json.loads(data)
        except ValueError as error:
            raise UnreachableError(action, f"the response is not JSON: {data[:200]!r}") from error
        self.last_success = self._clock()
        return manifest


def _path(manifest: Manifest, subresource: str | None = None) -> str:
    return TYPES[manifest["kind"]].path(manifest["metadata"]["namespace"], manifest["metadata"]["name"], subresource)


def kubeconfig_from_environment(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The kubeconfig of an operator outside a cluster; None inside a pod."""
    if environ.get("KUBECONFIG"):
        return Path(environ["KUBECONFIG"].split(os.pathsep)[0])
    default = Path("~/.kube/config").expanduser()
    return default if "KUBERNETES_SERVICE_HOST" not in environ and default.exists() else None
