"""Pushes artifacts to the Hugging Face Hub and reads repositories at a commit.

Any package of the jobs but `runtime` may import it. It imports `huggingface_hub` only inside its functions.
"""

from hatchery_jobs.hub.download import HubSnapshot, find_snapshot, hub_token
from hatchery_jobs.hub.push import check_writable, push_folder, push_once
from hatchery_jobs.hub.responses import hub_errors

__all__ = [
    "HubSnapshot",
    "check_writable",
    "find_snapshot",
    "hub_errors",
    "hub_token",
    "push_folder",
    "push_once",
]
