"""The settings file: what it may hold, and what a user reads when it is wrong."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from hatchery_api.kinds import KINDS
from hatchery_operator.settings import (
    DEFAULT_PATH,
    PATH_VARIABLE,
    Settings,
    SettingsError,
    load_settings,
    own_namespace,
    replica_name,
    settings_path,
)


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_means_all_defaults(write, text) -> None:
    assert load_settings(write(text)) == Settings()


def test_the_public_hub_and_the_documented_ports_are_defaults() -> None:
    settings = Settings()
    assert settings.hub_endpoint == "https://huggingface.co"
    assert (settings.metrics_port, settings.health_port, settings.progress.port) == (8080, 8081, 8443)
    assert settings.claim_name == "hatchery"
    assert settings.namespaces == []
    assert settings.progress.service_url is None


def test_values_are_read_by_their_wire_names(write) -> None:
    settings = load_settings(
        write(
            "namespaces: [a, b]\nprogress: {serviceUrl: 'https://x.y.svc:8443'}\nstageResources: {corpus: {limits: {cpu: 4}}}"
        )
    )
    assert settings.namespaces == ["a", "b"]
    assert settings.progress.service_url == "https://x.y.svc:8443"
    assert settings.stage_resources.corpus.limits == {"cpu": 4}


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        ("wrkers: 4", "wrkers", "unknown setting; check the spelling"),
        ("progress: {prot: 1}", "progress.prot", "unknown setting"),
        ("workers: 0", "workers", "greater than or equal to 1, got 0"),
        ("workers: many", "workers", "valid integer"),
        ("progress: {port: 65536}", "progress.port", "less than or equal to 65535"),
        ("logLevel: loud", "logLevel", "'debug', 'info', 'warning' or 'error'"),
        ("namespaces: team", "namespaces", "valid list"),
        ("stageResources: {corpus: {requests: {memory: lots}}}", "stageResources.corpus.requests.memory", "4Gi"),
        ("stageResources: {train: {}}", "stageResources.train", "unknown setting"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_file_and_field(write, text, field, remedy) -> None:
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: {field}")
    assert remedy in str(caught.value)


def test_all_wrong_fields_are_named_at_once(write) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write("workers: 0\nclaimName: Not A Name\n"))
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["claimName", "workers"]


@pytest.mark.parametrize(
    ("text", "what"), [("a: [", "not valid YAML"), ("- a", "must be a map of settings, not a list")]
)
def test_what_is_no_map_is_an_error(write, text, what) -> None:
    with pytest.raises(SettingsError, match=what):
        load_settings(write(text))


def test_a_missing_file_says_how_to_name_another(tmp_path) -> None:
    with pytest.raises(SettingsError, match=f"No such file or directory.*pass --config or set {PATH_VARIABLE}"):
        load_settings(tmp_path / "absent.yaml")


def test_the_argument_comes_before_the_environment_and_that_before_the_default() -> None:
    environment = {PATH_VARIABLE: "/from/environment"}
    assert settings_path("/from/argument", environment) == Path("/from/argument")
    assert settings_path(None, environment) == Path("/from/environment")
    assert settings_path(None, {}) == DEFAULT_PATH


def test_every_stage_has_resources_of_its_own() -> None:
    resources = Settings().stage_resources
    marked = resources.model_copy(
        update={
            name: resources.corpus.model_copy(update={"requests": {name: 1}}) for name in type(resources).model_fields
        }
    )
    found = {stage: "".join(marked.of(stage).requests) for kind in KINDS for stage in kind.stages}
    assert len(set(found.values())) == len(found)
    assert found.items() >= {
        ("build", "corpus"),
        ("vocabulary", "tokenizer"),
        ("encode", "encode"),
        ("train", "pretrain"),
        ("evaluate", "evaluate"),
    }


def test_settings_cannot_be_changed_while_the_operator_runs() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().workers = 1


@pytest.mark.parametrize(
    "times",
    ["{leaseSeconds: 8}", "{renewDeadlineSeconds: 12}", "{retrySeconds: 5}", "{leaseSeconds: 3, retrySeconds: 1}"],
)
def test_an_election_in_which_a_leader_could_outlive_its_lease_is_refused(write, times) -> None:
    with pytest.raises(SettingsError, match=r"leaderElection: .*must be less than leaseSeconds"):
        load_settings(write(f"leaderElection: {times}"))


def test_the_operators_namespace_is_that_of_its_pod_unless_it_is_set(tmp_path) -> None:
    mounted = tmp_path / "namespace"
    mounted.write_text("hatchery-system\n")
    assert own_namespace(Settings(), mounted) == "hatchery-system"
    assert own_namespace(Settings(operator_namespace="here"), mounted) == "here"
    with pytest.raises(SettingsError, match="operatorNamespace: must be set outside a pod"):
        own_namespace(Settings(), tmp_path / "absent")


def test_a_replica_has_its_pods_name() -> None:
    assert replica_name({"HOSTNAME": "operator-7d4"}) == "operator-7d4"
    assert replica_name({})
