"""The one error of this package: something about the machine or the cluster that its user has to know."""


class ClusterError(Exception):
    """A step failed; the message names the step, the cause and where to look."""
