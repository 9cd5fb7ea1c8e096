"""The local cluster itself."""

import pytest
from tests.cluster.cluster import Cluster
from tests.cluster.images import ensure_images
from tests.cluster.selfcheck import check_pod


@pytest.mark.e2e
def test_a_restricted_pod_resolves_names_and_writes_to_its_volume() -> None:
    cluster = Cluster()
    cluster.up()
    assert check_pod(cluster, ensure_images(cluster.layout)["operator"]).startswith("uid 10001 resolved 10.96.0.1")
