"""kopf only watches: it neither compares objects nor writes to them."""

import asyncio

import kopf
from tests.support.operator.builders import manifest

from hatchery_operator.controller.handlers import configure


def configured() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    asyncio.run(configure(settings))
    return settings


def test_kopf_compares_nothing_of_an_object_that_changes() -> None:
    storage = configured().persistence.diffbase_storage
    body = kopf.Body(kopf.RawBody(**manifest()))
    assert storage.fetch(body=body) is None
    assert storage.build(body=body) == {}


def test_kopf_stores_nothing_in_an_object() -> None:
    persistence = configured().persistence
    body, patch = kopf.Body(kopf.RawBody(**manifest())), kopf.Patch()
    persistence.diffbase_storage.store(body=body, patch=patch, essence=kopf.BodyEssence())
    persistence.progress_storage.touch(body=body, patch=patch, value="now")
    persistence.progress_storage.store(key="handler", record={"retries": 1}, body=body, patch=patch)
    persistence.progress_storage.purge(key="handler", body=body, patch=patch)
    assert not patch
    assert persistence.progress_storage.fetch(key="handler", body=body) is None
