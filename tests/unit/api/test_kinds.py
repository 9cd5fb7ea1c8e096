"""The kinds as data."""

from hatchery_api.kinds import KINDS
from hatchery_api.schema import NAME_LIMIT

DNS_LABEL_LIMIT = 63


def test_no_two_kinds_share_a_stage_name_or_their_jobs_would_share_a_name():
    stages = [stage for kind in KINDS for stage in kind.stages]
    assert len(set(stages)) == len(stages)
    assert not any("-" in stage for stage in stages)


def test_the_longest_pod_hostname_is_a_dns_label():
    longest = max(len(stage) for kind in KINDS for stage in kind.stages)
    assert NAME_LIMIT + len("-") + longest + len("-a20") + len("-1023") <= DNS_LABEL_LIMIT
