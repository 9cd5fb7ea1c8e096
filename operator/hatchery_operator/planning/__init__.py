"""What to do about a resource: `plan` decides from the resource, the observed cluster and the settings.

Pure: no I/O, no clock. `controller` may import it; it imports `domain`, `diagnosis`, `manifests`, `stages` and the
settings.
"""

from hatchery_operator.planning.context import ChildRef
from hatchery_operator.planning.planner import plan
from hatchery_operator.planning.status import Plan, UserEvent

__all__ = ["ChildRef", "Plan", "UserEvent", "plan"]
