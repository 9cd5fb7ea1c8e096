"""kopf's part: watching. Handlers keep the cache current and put keys on the work queue, nothing else."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import kopf

from hatchery_api.base import GROUP, VERSION
from hatchery_api.kinds import KINDS
from hatchery_operator.domain import UID_LABEL, Key, key_of, resource_version, summarize_job
from hatchery_operator.kube import Cache, Credentials

Wake = Callable[[Key], None]
"""Puts a key on the work queue."""

SERVER_TIMEOUT_SECONDS: Final = 300
"""Life of a watch at the API server, which takes whole seconds only."""

CLIENT_TIMEOUT_SECONDS: Final = 310.0
"""Life of a watch at our end, in case the server's end is lost."""

INACTIVITY_SECONDS: Final = 68.0
"""Silence after which a watch counts as dead: the API server sends a bookmark every minute when nothing happens."""

CONNECT_TIMEOUT_SECONDS: Final = 30.0
"""Longest time a connection may take."""

RECONNECT_SECONDS: Final = 2.0
"""Wait before a watch that broke is begun again."""

REQUEST_SECONDS: Final = 60.0
"""Longest listing."""

RETRY_SECONDS: Final = (1.0, 2.0, 4.0, *[8.0] * 450)
"""Waits of kopf while the API server is away: after an hour the operator gives up and is started afresh."""

IDLE_SECONDS: Final = 1.0
"""How long kopf keeps a task for an object that nothing happens to; one task an object is much memory at start."""

EXIT_SECONDS: Final = 30.0
"""Time kopf has to end after a watch that cannot go on, before it kills the process: several seconds on a quiet node,
more than ten on a busy one."""

PAGE_OBJECTS: Final = 100
"""Objects in one page of kopf's listings."""


def register(
    registry: kopf.OperatorRegistry,
    cache: Cache,
    wake: Wake,
    credentials: Callable[[], Awaitable[Credentials]],
    heard: Callable[[str], None],
) -> None:
    """Registers all handlers; `heard` is told the kind of every event."""

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
        for key in take_run(cache, cast("dict[str, Any]", event)):
            wake(key)

    async def _job(event: kopf.RawEvent, **_: Any) -> None:
        heard("Job")
        if key := take_job(cache, cast("dict[str, Any]", event)):
            wake(key)

    kopf.on.startup(registry=registry, id="hatchery-settings")(configure)
    kopf.on.login(registry=registry, id="hatchery-login")(_login)
    for kind in KINDS:
        kopf.on.event(GROUP, VERSION, kind.plural, registry=registry, id=f"hatchery-{kind.plural}")(_run)
    kopf.on.event("batch", "v1", "jobs", labels={UID_LABEL: kopf.PRESENT}, registry=registry, id="hatchery-jobs")(_job)


async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Kopf's settings: watches that notice when they are dead, and nothing ever written to an object."""
    settings.posting.enabled = False
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.watching.server_timeout = SERVER_TIMEOUT_SECONDS
    settings.watching.client_timeout = CLIENT_TIMEOUT_SECONDS
    settings.watching.inactivity_timeout = INACTIVITY_SECONDS
    settings.watching.connect_timeout = CONNECT_TIMEOUT_SECONDS
    settings.watching.reconnect_backoff = RECONNECT_SECONDS
    settings.watching.chunk_size = PAGE_OBJECTS
    # unlike a handler's filter this one works at the API server: foreign Jobs cost nothing
    settings.watching.label_selectors["batch", "v1", "jobs"] = UID_LABEL
    settings.networking.request_timeout = REQUEST_SECONDS
    settings.networking.error_backoffs = RETRY_SECONDS
    settings.networking.connect_timeout = CONNECT_TIMEOUT_SECONDS
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.progress_storage = NoProgress()
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.process.ultimate_exiting_timeout = EXIT_SECONDS


def take_run(cache: Cache, event: dict[str, Any]) -> frozenset[Key]:
    """Takes a resource's event into the cache; returns who must look at the cluster again."""
    manifest = event["object"]
    key = key_of(manifest)
    if event["type"] == "DELETED":
        return cache.remove(key, resource_version(manifest)) | {key}
    return cache.put_or_log(manifest)


def take_job(cache: Cache, event: dict[str, Any]) -> Key | None:
    """Takes a Job's event into the cache; returns the key of its owner if that must look at the cluster again."""
    job = summarize_job(event["object"])
    if job is None:
        return None
    is_news = cache.remove_job(job) if event["type"] == "DELETED" else cache.put_job(job)
    return job.owner if is_news else None


class NoDiffBase(kopf.DiffBaseStorage):
    """Spares kopf three copies of an object for each of its events: nothing here is a change handler, none is used."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing of an object is compared."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        """Nothing was stored."""

    def store(self, **_: Any) -> None:
        """Nothing is stored."""


class NoProgress(kopf.ProgressStorage):
    """The same for the progress of handlers: event handlers have none that lasts."""

    def fetch(self, **_: Any) -> None:
        """Nothing was stored."""

    def store(self, **_: Any) -> None:
        """Nothing is stored."""

    def purge(self, **_: Any) -> None:
        """Nothing is there to remove."""

    def touch(self, **_: Any) -> None:
        """Nothing is touched."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Nothing is in it that should not be."""
        return essence


def silence_kopf() -> None:
    """Keeps kopf's line for every object and event out of the log."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
