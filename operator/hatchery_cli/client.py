"""The cluster behind the user's kubeconfig.

The Kubernetes client takes more than a second to import, so each function that needs it imports it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from hatchery_api.base import GROUP, VERSION
from hatchery_api.format import counted
from hatchery_api.kinds import KINDS, Kind
from hatchery_cli.errors import CommandError, Exit

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

PAGE_OBJECTS: Final = 500
"""Objects per list request."""

FIELD_MANAGER: Final = "hatchery-cli"
"""Field manager of `hatchery apply`."""

MISSING: Final = 404
CONFLICT: Final = 409

Resource = dict[str, Any]


class ClusterClient(Protocol):
    """What the commands need from a cluster."""

    namespace: str
    """Namespace of the kubeconfig context."""

    def list(self, namespace: str | None) -> list[Resource]:
        """All runs of a namespace, or of all namespaces with None."""
        ...

    def apply(self, resource: Resource, namespace: str, *, dry_run: bool) -> Resource:
        """Creates or updates an object and returns the stored one."""
        ...


class KubeCluster:
    """A cluster reached with a kubeconfig."""

    def __init__(self, context: str | None = None, kubeconfig: str | None = None) -> None:
        """Reads the kubeconfig without sending a request."""
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException

        try:
            self._api: ApiClient = config.new_client_from_config(kubeconfig, context)
            contexts, active = config.list_kube_config_contexts(kubeconfig)
            named = next((c for c in contexts if c["name"] == context), active)
            self.namespace: str = named["context"].get("namespace") or "default"
        except (ConfigException, OSError) as error:
            raise CommandError(
                f"no usable kubeconfig: {error}; set KUBECONFIG or pass --kubeconfig and --context"
            ) from error
        self._custom = client.CustomObjectsApi(self._api)

    def list(self, namespace: str | None) -> list[Resource]:
        """All runs of a namespace, or of all namespaces with None."""
        return [resource for kind in KINDS for resource in self._list(kind, namespace)]

    def _list(self, kind: Kind, namespace: str | None) -> Iterator[Resource]:
        token = None
        while True:
            with explained(f"list {kind.plural}"):
                page = self._page(kind, namespace, token)
            # items of a list have no kind
            yield from ({**item, "kind": kind.kind} for item in page["items"])
            token = page["metadata"].get("continue")
            if not token:
                return

    def _page(self, kind: Kind, namespace: str | None, token: str | None) -> Resource:
        options: dict[str, Any] = {"limit": PAGE_OBJECTS}
        if token:
            options["_continue"] = token
        if namespace is None:
            page: Resource = self._custom.list_custom_object_for_all_namespaces(GROUP, VERSION, kind.plural, **options)
        else:
            page = self._custom.list_namespaced_custom_object(GROUP, VERSION, namespace, kind.plural, **options)
        return page

    def apply(self, resource: Resource, namespace: str, *, dry_run: bool) -> Resource:
        """Creates or updates an object by server-side apply and returns the stored one."""
        from kubernetes.dynamic import DynamicClient
        from kubernetes.dynamic.exceptions import ResourceNotFoundError

        name = f"{resource['kind']} {resource['metadata']['name']}"
        with explained(f"apply {name}"):
            dynamic = DynamicClient(self._api)
            try:
                api = dynamic.resources.get(api_version=resource["apiVersion"], kind=resource["kind"])
            except ResourceNotFoundError as error:
                raise CommandError(
                    f"{name}: the cluster does not serve {resource['kind']} of {resource['apiVersion']}; "
                    "is the chart installed?",
                    Exit.FAILED,
                ) from error
            options = {"dry_run": "All"} if dry_run else {}
            where = resource["metadata"].get("namespace", namespace) if api.namespaced else None
            applied = dynamic.server_side_apply(
                api, body=resource, namespace=where, field_manager=FIELD_MANAGER, **options
            )
        return dict(applied.to_dict())


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns exceptions of the client into command errors that say what was attempted."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise CommandError(f"{what}: {api_message(error.status or 0, error.body)}", Exit.FAILED) from error
    except HTTPError as error:
        raise CommandError(f"{what}: the cluster is unreachable: {error}", Exit.FAILED) from error


def api_message(code: int, body: str | bytes | None) -> str:
    """The API server's error: one line per invalid field, and a remedy for frequent codes."""
    try:
        status: Mapping[str, Any] = json.loads(body or "{}")
    except ValueError:
        status = {}
    causes = (status.get("details") or {}).get("causes") or []
    lines = [f"{cause['field']}: {cause['message']}" for cause in causes if cause.get("field")]
    message = status.get("message") or f"HTTP status {code}"
    if code == CONFLICT:
        return f"{message}; another field manager owns these fields; change them there, or delete and apply again"
    if code == MISSING and not causes:
        return f"{message}; is the chart installed, and does the namespace exist?"
    return "\n  ".join([f"{counted(len(lines), 'invalid field')}:", *lines]) if lines else message
