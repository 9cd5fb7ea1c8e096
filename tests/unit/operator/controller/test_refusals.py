"""What the API server refuses is tried again soon, whatever clocks do."""

from tests.support.operator.builders import NAMESPACE, NOW, later

from hatchery_api.conditions import Reason
from hatchery_operator.controller.refusals import Refusals
from hatchery_operator.domain import Diagnosis, Key
from hatchery_operator.domain.backoff import REFUSED_CHILD

KEY = Key("CorpusBuild", NAMESPACE, "corpus")


def test_a_clock_that_is_set_back_an_hour_does_not_keep_a_refused_child_waiting_for_an_hour() -> None:
    refusals = Refusals()
    assert refusals.is_news(KEY, Diagnosis(Reason.QUOTA_EXCEEDED, "no"), NOW)
    assert refusals.wait_seconds(KEY, NOW) == REFUSED_CHILD.first_seconds
    assert refusals.wait_seconds(KEY, later(-3600)) == REFUSED_CHILD.first_seconds
    assert refusals.wait_seconds(KEY, later(REFUSED_CHILD.first_seconds)) == 0
