"""What users write and what operator and pods tell each other: pydantic models, nothing else."""

from typing import Final

__version__: Final = "0.1.0"
"""Version of everything: the distribution, the images, and the chart."""
