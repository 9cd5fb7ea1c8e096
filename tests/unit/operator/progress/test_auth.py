"""Tokens are verified by the keys that the API server publishes; every kind of invalid token is rejected."""

import asyncio
import time
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from hatchery_operator.errors import UnreachableError
from hatchery_operator.kube.client import Cluster
from hatchery_operator.progress.auth import KEYS_PATH, ProgressAccess
from hatchery_operator.progress.receiver import Identity

ISSUER = "https://kubernetes.default.svc"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
BOUND = {"namespace": "team", "pod": {"name": "p", "uid": "u"}, "serviceaccount": {"name": "default", "uid": "s"}}
POD = Identity(pod_name="p", pod_uid="u", namespace="team")


def published(identifier: str, key: Any) -> dict[str, Any]:
    """A key as the API server publishes it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": identifier, "alg": "RS256"}
    return {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": identifier, "alg": "ES256"}


def token(key: Any = RSA, identifier: str = "k1", algorithm: str = "RS256", **changes: Any) -> str:
    now = int(time.time())
    claims = {
        "aud": ["hatchery.dev/progress"],
        "iss": ISSUER,
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "sub": "system:serviceaccount:team:default",
        "kubernetes.io": BOUND,
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={"kid": identifier})


class Api:
    def __init__(self, **keys: Any) -> None:
        self.keys = keys
        self.pod: dict[str, Any] | None = None
        self.reads = 0
        self.is_away = False

    async def read(self, path: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.is_away:
            raise UnreachableError("GET", "no answer")
        self.reads += path == KEYS_PATH
        return {"issuer": ISSUER, "keys": [published(name, key) for name, key in self.keys.items()]}

    async def get(self, *_: object) -> dict[str, Any] | None:
        return self.pod


class StageContext:
    def __init__(self, **keys: Any) -> None:
        self.api = Api(**(keys or {"k1": RSA}))
        self.now = 0.0
        self.access = ProgressAccess(cast("Cluster", self.api), lambda: self.now)
        self.runner = asyncio.Runner()

    def identify(self, *tokens: str) -> list[Identity | None]:
        async def all_at_once() -> list[Identity | None]:
            return list(await asyncio.gather(*(self.access.identify(one) for one in tokens)))

        return self.runner.run(all_at_once())


@pytest.fixture
def case():
    made = StageContext()
    yield made
    made.runner.close()


def test_a_pods_token_says_which_pod(case) -> None:
    assert case.identify(token()) == [POD]


def test_keys_on_curves_work_too(case) -> None:
    case.api.keys = {"k2": CURVE}
    assert case.identify(token(CURVE, "k2", "ES256")) == [POD]


UNSIGNED = jwt.encode({"aud": "hatchery.dev/progress", "iss": ISSUER, "kubernetes.io": BOUND}, None, "none")
FORGED = {
    "signed by somebody else": token(OTHER),
    "not signed": UNSIGNED,
    "signed with the public key as a secret": token("x" * 64, algorithm="HS256"),
    "another signature": token()[:-12] + token(exp=int(time.time()) + 9)[-12:],
    "for the API server": token(aud=["https://kubernetes.default.svc"]),
    "for everybody": token(aud=None),
    "of another cluster": token(iss="https://elsewhere"),
    "expired": token(exp=int(time.time()) - 60),
    "without end": token(exp=None),
    "not valid yet": token(nbf=int(time.time()) + 3000),
    "of no pod": token(**{"kubernetes.io": {"namespace": "team", "serviceaccount": {"name": "default"}}}),
    "of an old kind": token(**{"kubernetes.io": None}),
    "of nothing": token(**{"kubernetes.io": "team"}),
    "of an unknown key": token(OTHER, "k9"),
    "no token": "abc",
    "half a token": token().rpartition(".")[0],
    "empty": "..",
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_any_other_token_is_nobodys(case, forged: str) -> None:
    assert case.identify(forged, token()) == [None, POD]


def test_many_pods_that_start_at_once_cost_one_reading_of_the_keys(case) -> None:
    assert case.identify(*[token()] * 50) == [POD] * 50
    assert case.api.reads == 1


def test_invented_tokens_cost_one_reading_of_the_keys_in_ten_seconds(case) -> None:
    case.identify(token())
    for second in range(60):
        case.now = float(second)
        assert set(case.identify(*[token(OTHER, f"k{n}") for n in range(20)])) == {None}
    assert case.api.reads <= 7


def test_a_new_key_is_taken_and_a_withdrawn_one_is_not(case) -> None:
    case.identify(token())
    case.api.keys = {"k2": OTHER}
    case.now = 11.0
    assert case.identify(token(OTHER, "k2")) == [POD]
    assert case.identify(token()) == [None]


def test_a_withdrawn_key_stops_working_within_five_minutes_though_nobody_uses_another(case) -> None:
    case.identify(token())
    case.api.keys = {"k2": OTHER}
    case.now = 299.0
    assert case.identify(token()) == [POD]
    case.now = 301.0
    assert case.identify(token()) == [None]


def test_without_an_answer_known_keys_go_on_working_and_unknown_ones_are_no_verdict(case) -> None:
    case.identify(token())
    case.api.is_away = True
    case.now = 400.0
    assert case.identify(token()) == [POD]
    case.now = 500.0
    with pytest.raises(UnreachableError):
        case.identify(token(OTHER, "k2"))


def test_labels_are_those_of_the_very_pod_in_the_token(case) -> None:
    case.api.pod = {"metadata": {"uid": "u", "labels": {"a": "b"}}}
    assert case.runner.run(case.access.pod_labels(POD)) == {"a": "b"}
    case.api.pod = {"metadata": {"uid": "made later", "labels": {"a": "b"}}}
    assert case.runner.run(case.access.pod_labels(POD)) is None
    case.api.pod = None
    assert case.runner.run(case.access.pod_labels(POD)) is None
