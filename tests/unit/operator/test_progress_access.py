"""Whose a token is, as the API server's review says."""

import asyncio
from typing import Any, cast

import pytest

from hatchery_operator.cluster import Cluster
from hatchery_operator.progress import Identity
from hatchery_operator.progress_access import ProgressAccess

POD = "authentication.kubernetes.io/pod-"
GOOD: dict[str, Any] = {
    "authenticated": True,
    "audiences": ["hatchery.dev/progress"],
    "user": {
        "username": "system:serviceaccount:team:default",
        "extra": {f"{POD}name": ["p"], f"{POD}uid": ["u"]},
    },
}


class Api:
    def __init__(self, review: dict[str, Any], pod: dict[str, Any] | None = None) -> None:
        self.review, self.pod = review, pod

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        assert (token, audience) == ("t", "hatchery.dev/progress")
        return self.review

    async def get(self, *_: object) -> dict[str, Any] | None:
        return self.pod


def review(status: dict[str, Any]) -> Identity | None:
    return asyncio.run(ProgressAccess(cast("Cluster", Api(status))).review("t"))


def test_a_pods_token_says_which_pod() -> None:
    assert review(GOOD) == Identity(pod_name="p", pod_uid="u", namespace="team")


@pytest.mark.parametrize(
    "status",
    [
        {},
        {**GOOD, "authenticated": False},
        {**GOOD, "audiences": ["https://kubernetes.default.svc"]},
        {**GOOD, "user": {**GOOD["user"], "username": "admin"}},
        {**GOOD, "user": {**GOOD["user"], "extra": {}}},
    ],
)
def test_any_other_token_is_nobodys(status: dict[str, Any]) -> None:
    assert review(status) is None


def test_labels_of_a_pod() -> None:
    pod = {"metadata": {"labels": {"a": "b"}}}
    assert asyncio.run(ProgressAccess(cast("Cluster", Api({}, pod))).pod_labels("n", "p")) == {"a": "b"}
    assert asyncio.run(ProgressAccess(cast("Cluster", Api({}))).pod_labels("n", "p")) is None
