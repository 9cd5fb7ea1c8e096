"""What users write and what operator and pods tell each other: pydantic models, nothing else."""

__version__ = "0.2.0"
"""Version of everything: the distribution, the images, and the chart."""
