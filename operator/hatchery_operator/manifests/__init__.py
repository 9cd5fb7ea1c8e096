"""The Kubernetes objects of an attempt. Pure: no I/O, no clock.

`controller` may import it; it imports `domain`, `stages` and the settings.
"""

from hatchery_operator.manifests.job import manifests
from hatchery_operator.manifests.network import runs_policy

__all__ = ["manifests", "runs_policy"]
