"""A server that Hugging Face Hub clients cannot tell from the Hub, for tests and for clusters without internet.

Standard library only, files on disk, no Xet: clients need HF_HUB_DISABLE_XET=1 in their environment.
"""

from .faults import Fault
from .server import HubServer, Seen

__all__ = ["Fault", "HubServer", "Seen"]
