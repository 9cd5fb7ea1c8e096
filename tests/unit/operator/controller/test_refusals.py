"""What the API server refuses is tried again soon, whatever clocks do."""

from tests.support.operator.builders import NAMESPACE, NOW, later

from hatchery_api.conditions import Reason
from hatchery_operator.controller.refusals import FIRST_WAIT_SECONDS, Refusals
from hatchery_operator.domain.diagnosis import Diagnosis
from hatchery_operator.domain.objects import Key

KEY = Key("CorpusBuild", NAMESPACE, "corpus")


def test_a_clock_that_is_set_back_an_hour_does_not_keep_a_refused_child_waiting_for_an_hour() -> None:
    refusals = Refusals()
    assert refusals.is_news(KEY, Diagnosis(Reason.QUOTA_EXCEEDED, "no"), NOW)
    assert refusals.wait_seconds(KEY, NOW) == FIRST_WAIT_SECONDS
    assert refusals.wait_seconds(KEY, later(-3600)) == FIRST_WAIT_SECONDS
    assert refusals.wait_seconds(KEY, later(FIRST_WAIT_SECONDS)) == 0
