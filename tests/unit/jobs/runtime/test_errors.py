"""Retries back off exponentially, up to a cap, and honour what the server asks for."""

from hypothesis import given
from hypothesis import strategies as st

from hatchery_jobs.runtime.errors import retry_delay


def test_the_delay_doubles_up_to_the_cap():
    assert [retry_delay(failures, 2, 30) for failures in range(1, 7)] == [2, 4, 8, 16, 30, 30]
    assert retry_delay(10**9, 2, 30) == 30


def test_jitter_spreads_over_the_upper_half():
    assert [retry_delay(3, 2, 30, jitter=jitter) for jitter in (0, 0.5, 1)] == [4, 6, 8]


@given(st.integers(1, 100), st.floats(0, 1e6), st.floats(0, 1))
def test_a_server_that_asks_for_time_gets_it_even_beyond_the_cap(failures, retry_after, jitter):
    delay = retry_delay(failures, 2, 30, retry_after=retry_after, jitter=jitter)
    assert delay >= retry_after
    assert delay == max(retry_after, retry_delay(failures, 2, 30, jitter=jitter))
