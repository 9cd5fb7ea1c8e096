"""kopf event handlers: they update the cache and put keys on the work queue, nothing else."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import kopf

from hatchery_api.base import GROUP, VERSION
from hatchery_api.kinds import KINDS
from hatchery_operator.domain.job_summary import summarize_job
from hatchery_operator.domain.labels import UID_LABEL
from hatchery_operator.domain.objects import Key, key_of, resource_version
from hatchery_operator.kube import Cache, Credentials

Wake = Callable[[Key], None]
"""Puts a key on the work queue."""

SERVER_TIMEOUT_SECONDS: Final = 300
"""Server-side timeout of a watch; the API server takes whole seconds only."""

CLIENT_TIMEOUT_SECONDS: Final = 310.0
"""Client-side timeout of a watch, in case the connection is lost."""

INACTIVITY_SECONDS: Final = 68.0
"""Silence after which a watch counts as dead: an idle watch gets a bookmark every minute."""

CONNECT_TIMEOUT_SECONDS: Final = 30.0
"""Connection timeout."""

RECONNECT_SECONDS: Final = 2.0
"""Delay before a broken watch reconnects."""

LIST_SECONDS: Final = 60.0
"""Timeout of a list request."""

RETRY_SECONDS: Final = (1.0, 2.0, 4.0, *[8.0] * 450)
"""kopf's retry delays while the API server is unreachable: after an hour the operator exits and is restarted."""

IDLE_SECONDS: Final = 1.0
"""How long kopf keeps the task of an idle object; a task per object costs much memory at start."""

EXIT_SECONDS: Final = 30.0
"""Time kopf has to exit after a fatal watch error before it kills the process: several seconds on an idle node, more
than ten on a busy one."""

LIST_PAGE_OBJECTS: Final = 100
"""Objects per page of kopf's list requests."""


def register(
    registry: kopf.OperatorRegistry,
    cache: Cache,
    wake: Wake,
    credentials: Callable[[], Awaitable[Credentials]],
    heard: Callable[[str], None],
) -> None:
    """Registers all handlers; `heard` receives the kind of every event."""

    async def _login(**_: Any) -> kopf.ConnectionInfo:
        current = await credentials()
        return kopf.ConnectionInfo(
            server=current.server,
            ca_path=current.ca_path,
            insecure=current.insecure,
            scheme="Bearer" if current.token else None,
            token=current.token,
            certificate_path=current.certificate_path,
            private_key_path=current.private_key_path,
        )

    async def _run(event: kopf.RawEvent, **_: Any) -> None:
        heard(event["object"]["kind"])
        for key in on_run_event(cache, cast("dict[str, Any]", event)):
            wake(key)

    async def _job(event: kopf.RawEvent, **_: Any) -> None:
        heard("Job")
        if key := on_job_event(cache, cast("dict[str, Any]", event)):
            wake(key)

    kopf.on.startup(registry=registry, id="hatchery-settings")(configure)
    kopf.on.login(registry=registry, id="hatchery-login")(_login)
    for kind in KINDS:
        kopf.on.event(GROUP, VERSION, kind.plural, registry=registry, id=f"hatchery-{kind.plural}")(_run)
    kopf.on.event("batch", "v1", "jobs", labels={UID_LABEL: kopf.PRESENT}, registry=registry, id="hatchery-jobs")(_job)


async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Configures kopf: dead watches are detected, and kopf never writes to an object."""
    settings.posting.enabled = False
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.watching.server_timeout = SERVER_TIMEOUT_SECONDS
    settings.watching.client_timeout = CLIENT_TIMEOUT_SECONDS
    settings.watching.inactivity_timeout = INACTIVITY_SECONDS
    settings.watching.connect_timeout = CONNECT_TIMEOUT_SECONDS
    settings.watching.reconnect_backoff = RECONNECT_SECONDS
    settings.watching.chunk_size = LIST_PAGE_OBJECTS
    # unlike a handler's filter, this one runs on the API server: foreign Jobs cost nothing
    settings.watching.label_selectors["batch", "v1", "jobs"] = UID_LABEL
    settings.networking.request_timeout = LIST_SECONDS
    settings.networking.error_backoffs = RETRY_SECONDS
    settings.networking.connect_timeout = CONNECT_TIMEOUT_SECONDS
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.progress_storage = NoProgress()
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.process.ultimate_exiting_timeout = EXIT_SECONDS


def on_run_event(cache: Cache, event: dict[str, Any]) -> frozenset[Key]:
    """Applies a resource's event to the cache; returns the keys to reconcile."""
    manifest = event["object"]
    key = key_of(manifest)
    if event["type"] == "DELETED":
        return cache.remove(key, resource_version(manifest)) | {key}
    return cache.put_or_log(manifest)


def on_job_event(cache: Cache, event: dict[str, Any]) -> Key | None:
    """Applies a Job's event to the cache; returns the owner's key if the owner must be reconciled."""
    job = summarize_job(event["object"])
    if job is None:
        return None
    is_news = cache.remove_job(job) if event["type"] == "DELETED" else cache.put_job(job)
    return job.owner if is_news else None


class NoDiffBase(kopf.DiffBaseStorage):
    """Stores nothing: without change handlers, kopf need not copy each object three times per event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Compares nothing."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        """Returns nothing."""

    def store(self, **_: Any) -> None:
        """Stores nothing."""


class NoProgress(kopf.ProgressStorage):
    """Stores nothing: event handlers have no lasting progress."""

    def fetch(self, **_: Any) -> None:
        """Returns nothing."""

    def store(self, **_: Any) -> None:
        """Stores nothing."""

    def purge(self, **_: Any) -> None:
        """Removes nothing."""

    def touch(self, **_: Any) -> None:
        """Touches nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Returns the essence unchanged."""
        return essence


def silence_kopf() -> None:
    """Silences the line that kopf logs for every object and event."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
