"""Conditions change as the Kubernetes API conventions say."""

from hatchery_api.conditions import Condition, ConditionType, find_condition, set_condition


def condition(kind: str, status: str, *, reason: str = "Running", at: str = "2026-01-01T00:00:00Z") -> Condition:
    return Condition(type=kind, status=status, reason=reason, last_transition_time=at)


def test_a_first_condition_is_added() -> None:
    new = condition("Succeeded", "Unknown")
    assert set_condition([], new) == [new]


def test_the_transition_time_moves_only_with_the_status() -> None:
    old = [condition("Succeeded", "Unknown", at="2026-01-01T00:00:00Z")]
    [same] = set_condition(old, condition("Succeeded", "Unknown", reason="Retrying", at="2026-01-02T00:00:00Z"))
    assert (same.reason, same.last_transition_time) == ("Retrying", "2026-01-01T00:00:00Z")
    [other] = set_condition(old, condition("Succeeded", "True", at="2026-01-02T00:00:00Z"))
    assert other.last_transition_time == "2026-01-02T00:00:00Z"


def test_the_others_stay_where_they_are() -> None:
    old = [condition("Succeeded", "Unknown"), condition("Progressing", "True"), condition("Stale", "False")]
    new = set_condition(old, condition("Progressing", "False"))
    assert [c.type for c in new] == ["Succeeded", "Progressing", "Stale"]
    assert (new[0], new[2]) == (old[0], old[2])


def test_a_condition_is_found_by_its_type() -> None:
    conditions = [condition("Succeeded", "Unknown"), condition("Stale", "False")]
    assert find_condition(conditions, ConditionType.STALE) == conditions[1]
    assert find_condition(conditions, ConditionType.DEGRADED) is None
