"""The control loop: kopf handlers feed the cache and the work queue, and the reconciler acts on one resource at a time.

Imported only by `__main__`. kopf is used here and in `__main__` alone.
"""

from hatchery_operator.controller.handlers import register, silence_kopf
from hatchery_operator.controller.observe import referenced_keys
from hatchery_operator.controller.reconciler import Reconciler

__all__ = ["Reconciler", "referenced_keys", "register", "silence_kopf"]
