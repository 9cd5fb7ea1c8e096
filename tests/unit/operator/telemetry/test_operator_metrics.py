"""What the parts of the operator put on its page of metrics."""

import pytest
from tests.support.operator.builders import manifest

from hatchery_operator.__main__ import Operator
from hatchery_operator.settings import LeaderElection, Settings


@pytest.mark.parametrize("leads", [True, False])
def test_only_the_leader_tells_of_resources_so_that_a_sum_over_replicas_is_right(
    leads: bool,
) -> None:
    # without election an operator leads; with it one that never got the lease does not
    operator = Operator(
        Settings(operator_namespace="hatchery-system", leader_election=LeaderElection(enabled=not leads))
    )
    operator._cache.put(manifest("CorpusBuild", "code"))
    page = operator._metrics.text().decode()
    assert f"hatchery_leader {float(leads)}" in page
    assert ('name="code"' in page) is leads
