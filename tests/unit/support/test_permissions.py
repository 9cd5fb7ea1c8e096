"""What is read out of an audit log, and what a rule allows."""

import json

import pytest
from tests.support.kube.permissions import Action, Rule, beyond, unused, usage

USER = "system:serviceaccount:ns:operator"


def line(verb="get", resource="jobs", decision="allow", user=USER, pod="p1", code=200, **target):
    return json.dumps(
        {
            "user": {"username": user, "extra": {"authentication.kubernetes.io/pod-name": [pod]}},
            "verb": verb,
            "objectRef": {"resource": resource, "apiGroup": "batch", "namespace": "team", **target},
            "annotations": {"authorization.k8s.io/decision": decision},
            "responseStatus": {"code": code},
        }
    )


def used(tmp_path, *lines, **options):
    log = tmp_path / "audit.log"
    log.write_text("".join(f"{one}\n" for one in lines))
    return usage(log, USER, **options)


def test_only_the_users_own_requests_count(tmp_path) -> None:
    found = used(tmp_path, line(), line("delete", user="somebody"))
    assert found.used == {Action("batch", "jobs", "get", "team")}


def test_a_forbidden_request_is_refused_and_not_used(tmp_path) -> None:
    found = used(tmp_path, line(decision="forbid"))
    assert (len(found.used), found.refused) == (0, {Action("batch", "jobs", "get", "team")})


def test_a_subresource_is_another_resource(tmp_path) -> None:
    assert used(tmp_path, line(subresource="status")).used == {Action("batch", "jobs/status", "get", "team")}


def test_an_apply_that_creates_uses_the_right_to_create(tmp_path) -> None:
    verbs = {action.verb for action in used(tmp_path, line("patch", code=201)).used}
    assert verbs == {"patch", "create"}
    assert {action.verb for action in used(tmp_path, line("patch", code=200)).used} == {"patch"}


def test_requests_of_other_pods_and_those_before_a_position_are_left_out(tmp_path) -> None:
    assert not used(tmp_path, line(pod="old"), pods={"new"}).used
    assert used(tmp_path, line(pod="new"), pods={"new"}).used
    first = line()
    assert {a.verb for a in used(tmp_path, first, line("delete"), position=len(first) + 1).used} == {"delete"}


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(line() + "\n" + line("delete")[:20])
    assert {action.verb for action in usage(log, USER).used} == {"get"}


RULE = Rule("batch", ("jobs", "cronjobs"), ("get", "list"))


def test_a_rule_is_used_when_each_verb_and_each_resource_is() -> None:
    get, other = Action("batch", "jobs", "get", "team"), Action("batch", "cronjobs", "list", "team")
    assert unused([RULE], [get, other]) == []
    assert unused([RULE], [get]) == ["anything on cronjobs batch", "list jobs/cronjobs batch"]


@pytest.mark.parametrize(
    ("action", "is_beyond"),
    [
        (Action("batch", "jobs", "get", "home"), False),
        (Action("batch", "jobs", "get", "team"), True),
        (Action("batch", "jobs", "delete", "home"), True),
        (Action("", "jobs", "get", "home"), True),
    ],
)
def test_a_rule_of_one_namespace_allows_nothing_elsewhere(action, is_beyond) -> None:
    rule = Rule("batch", ("jobs",), ("get",), "home")
    assert bool(beyond([rule], [action])) is is_beyond
