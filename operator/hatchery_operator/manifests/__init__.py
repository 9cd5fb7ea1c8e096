"""The Kubernetes objects of an attempt, from a parsed resource. Pure: no I/O, no clock.

`planning` and `controller` may import it; it imports `hatchery_api`, `domain`, `stages` and the settings.
"""

from hatchery_operator.manifests.job import input_problem, manifests
from hatchery_operator.manifests.network import runs_policy
from hatchery_operator.manifests.pod import Attempt, job_name
from hatchery_operator.manifests.resources import misfit

__all__ = ["Attempt", "input_problem", "job_name", "manifests", "misfit", "runs_policy"]
