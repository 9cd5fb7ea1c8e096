"""The local cluster itself."""

import pytest
from tests.cluster.selfcheck import check_pod


def test_a_restricted_pod_resolves_names_and_writes_to_its_volume(cluster, kube, images):
    if cluster.context:
        pytest.skip("HATCHERY_KUBECONTEXT names somebody's own cluster")
    assert check_pod(cluster, images["operator"]).startswith("uid 10001 resolved 10.96.0.1")
