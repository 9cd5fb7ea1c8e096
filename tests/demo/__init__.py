"""Raw text to an evaluated model on a real cluster, live: `python -m tests.demo`."""
