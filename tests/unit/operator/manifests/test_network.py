"""NetworkPolicies of the runs: ingress and egress of the pods, evaluated by the semantics of the policies."""

from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.kube.network_policies import Endpoint, allowed
from tests.support.operator.builders import NAMESPACE, manifest

from hatchery_api.contract import METRICS_PORT, RENDEZVOUS_PORT
from hatchery_operator.domain.attempt import Attempt
from hatchery_operator.domain.objects import Manifest, parse_run
from hatchery_operator.manifests import manifests, runs_policy
from hatchery_operator.manifests.network import RUNS_POLICY
from hatchery_operator.settings import Progress, Settings
from hatchery_operator.stages import STAGES

SETTINGS = Settings(progress=Progress(service_url="https://operator.hatchery-system.svc:8443"))
DENY_ALL: Manifest = {
    "metadata": {"name": "default-deny", "namespace": NAMESPACE},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}

DNS = Endpoint("10.96.0.10", "kube-system")
OPERATOR = Endpoint("10.1.0.9", "hatchery-system", {"app.kubernetes.io/name": "hatchery-operator"})
PROMETHEUS = Endpoint("10.1.0.8", "monitoring")
NEIGHBOUR = Endpoint("10.1.0.7", NAMESPACE, {"app": "notebook"})
HUB = Endpoint("203.0.113.5")
METADATA_SERVICE = Endpoint("169.254.169.254")


def attempt(name: str, nodes: int = 2, settings: Settings = SETTINGS) -> tuple[Endpoint, list[Manifest]]:
    """A pod of a training attempt, and the policies made for it."""
    run = parse_run(manifest("PretrainRun", name, parallelism={"nodes": nodes}))
    assert run.spec
    train = STAGES["PretrainRun"][1]
    made = manifests(Attempt(run, run.spec, "train", 1, train.shape(run.spec)), settings)
    job = made[-1]
    # the Job controller adds this label to every pod
    labels = {**job["spec"]["template"]["metadata"]["labels"], "batch.kubernetes.io/job-name": job["metadata"]["name"]}
    return Endpoint(f"10.1.1.{len(name)}", NAMESPACE, labels), [one for one in made if one["kind"] == "NetworkPolicy"]


POD, GANG = attempt("one")
OTHER, OTHERS = attempt("another")
POLICIES = [runs_policy(NAMESPACE, SETTINGS), *GANG, *OTHERS]


@pytest.mark.parametrize("policies", [POLICIES, [DENY_ALL, *POLICIES]], ids=["alone", "under default deny"])
@pytest.mark.parametrize(
    ("source", "target", "port", "is_allowed"),
    [
        (POD, POD, RENDEZVOUS_PORT, True),
        (POD, POD, 41_234, True),
        (OTHER, POD, RENDEZVOUS_PORT, False),
        (OTHER, POD, 41_234, False),
        (NEIGHBOUR, POD, RENDEZVOUS_PORT, False),
        (OPERATOR, POD, RENDEZVOUS_PORT, False),
        (HUB, POD, 22, False),
        (PROMETHEUS, POD, METRICS_PORT, True),
        (POD, HUB, 443, True),
        (POD, HUB, 80, True),
        (POD, HUB, 25, False),
        (POD, OPERATOR, 8443, True),
        (POD, OPERATOR, 22, False),
        (POD, METADATA_SERVICE, 80, False),
        (POD, PROMETHEUS, 9090, False),
    ],
)
def test_a_gang_is_closed_to_all_but_itself_and_metrics(
    policies: list[Manifest], source: Endpoint, target: Endpoint, port: int, is_allowed: bool
) -> None:
    assert allowed(policies, source, target, port) is is_allowed


@pytest.mark.parametrize("policies", [POLICIES, [DENY_ALL, *POLICIES]], ids=["alone", "under default deny"])
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_names_are_resolved(policies: list[Manifest], protocol: str) -> None:
    assert allowed(policies, POD, DNS, 53, protocol)


def test_pods_that_are_no_runs_are_left_as_they_were() -> None:
    assert allowed(POLICIES, HUB, NEIGHBOUR, 8888)
    assert allowed(POLICIES, NEIGHBOUR, METADATA_SERVICE, 80)
    assert not allowed([DENY_ALL, *POLICIES], HUB, NEIGHBOUR, 8888)


def test_a_gang_made_without_a_policy_of_its_own_stays_open_to_itself_after_an_upgrade() -> None:
    pod, own = attempt("old", settings=Settings.model_validate({"networkPolicies": {"enabled": False}}))
    assert own == []
    assert allowed([runs_policy(NAMESPACE, SETTINGS), *GANG], pod, pod, RENDEZVOUS_PORT)


def test_two_attempts_of_one_run_never_meet() -> None:
    run = parse_run(manifest("PretrainRun", "one", parallelism={"nodes": 2}))
    assert run.spec
    shape = STAGES["PretrainRun"][1].shape(run.spec)
    names = {manifests(Attempt(run, run.spec, "train", n, shape), SETTINGS)[1]["metadata"]["name"] for n in (1, 2)}
    assert names == {"one-train-a1", "one-train-a2"}
    later = Endpoint("10.1.1.99", NAMESPACE, {**POD.labels, "batch.kubernetes.io/job-name": "one-train-a2"})
    assert not allowed(POLICIES, later, POD, RENDEZVOUS_PORT)


def test_a_single_pod_has_no_policy_of_its_own() -> None:
    pod, own = attempt("alone", nodes=1)
    assert own == []
    assert not allowed([runs_policy(NAMESPACE, SETTINGS)], NEIGHBOUR, pod, RENDEZVOUS_PORT)


def ports(settings: Settings) -> set[int]:
    [_, outward] = runs_policy(NAMESPACE, settings)["spec"]["egress"]
    return {one["port"] for one in outward["ports"]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {80, 443}),
        ({"progress": {"serviceUrl": "https://x:8443", "port": 9443}}, {80, 443, 9443}),
        ({"hubEndpoint": "http://hub.internal:8080"}, {80, 443, 8080}),
        ({"networkPolicies": {"egressPorts": [9000]}}, {9000}),
    ],
)
def test_ports_are_those_of_the_settings(values: Any, expected: set[int]) -> None:
    assert ports(Settings.model_validate(values)) == expected


def test_no_port_at_all_does_not_mean_all_ports() -> None:
    settings = Settings.model_validate({"networkPolicies": {"egressPorts": []}})
    pod, own = attempt("one", settings=settings)
    policies = [runs_policy(NAMESPACE, settings), *own]
    assert not [port for port in (22, 80, 443, 8443) if allowed(policies, pod, HUB, port)]
    assert allowed(policies, pod, DNS, 53, "UDP")
    assert allowed(policies, pod, pod, RENDEZVOUS_PORT)


def test_where_pods_get_their_own_credentials_the_metadata_service_can_be_opened() -> None:
    settings = Settings.model_validate({"networkPolicies": {"blockedCidrs": []}})
    pod, own = attempt("one", settings=settings)
    assert allowed([runs_policy(NAMESPACE, settings), *own], pod, METADATA_SERVICE, 80)


def test_a_blocked_block_of_either_family_is_an_exception_of_its_own_family() -> None:
    settings = Settings.model_validate({"networkPolicies": {"blockedCidrs": ["10.9.0.0/16", "fd00::/8"]}})
    [_, outward] = runs_policy(NAMESPACE, settings)["spec"]["egress"]
    blocks = {peer["ipBlock"]["cidr"]: peer["ipBlock"]["except"] for peer in outward["to"] if "ipBlock" in peer}
    assert blocks == {"0.0.0.0/0": ["10.9.0.0/16"], "::/0": ["fd00::/8"]}


def test_a_block_that_is_none_is_refused_with_its_field() -> None:
    with pytest.raises(ValidationError, match=r"blockedCidrs\.0"):
        Settings.model_validate({"networkPolicies": {"blockedCidrs": ["everything"]}})


def test_turned_off_there_is_no_policy() -> None:
    settings = Settings.model_validate({"networkPolicies": {"enabled": False}})
    assert attempt("one", settings=settings)[1] == []


def test_the_policy_of_a_namespace_says_whose_it_is() -> None:
    metadata = runs_policy(NAMESPACE, SETTINGS)["metadata"]
    assert metadata["name"] == RUNS_POLICY
    assert metadata["labels"] == {"app.kubernetes.io/managed-by": "hatchery"}
