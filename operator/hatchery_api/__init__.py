"""What users write and what operator and pods tell each other: pydantic models, nothing else."""
