"""Live progress: receives the pods' reports over TLS and writes them to `status.progress`; runs on every replica.

Imported only by `__main__`; imports `kube` and `domain`.
"""

from hatchery_operator.progress.service import ProgressService

__all__ = ["ProgressService"]
