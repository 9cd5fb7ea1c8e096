"""A rejected child is created again soon, even if the clock is set back."""

from tests.support.operator.builders import NAMESPACE, NOW, later

from hatchery_api.conditions import Reason
from hatchery_operator.controller.child_backoff import ChildBackoff
from hatchery_operator.domain.backoff import REFUSED_CHILD
from hatchery_operator.domain.objects import Diagnosis, Key

KEY = Key("CorpusBuild", NAMESPACE, "corpus")


def test_a_clock_that_is_set_back_an_hour_does_not_keep_a_refused_child_waiting_for_an_hour() -> None:
    backoff = ChildBackoff()
    assert backoff.record(KEY, Diagnosis(Reason.QUOTA_EXCEEDED, "no"), NOW)
    assert backoff.wait_seconds(KEY, NOW) == REFUSED_CHILD.first_seconds
    assert backoff.wait_seconds(KEY, later(-3600)) == REFUSED_CHILD.first_seconds
    assert backoff.wait_seconds(KEY, later(REFUSED_CHILD.first_seconds)) == 0
