"""Texts with enough structure that a model learns something in a few updates."""

import numpy as np


def documents(count: int, seed: int) -> list[str]:
    """Documents of a few sentences."""
    random = np.random.default_rng(seed)
    nouns, verbs = ["the cat", "a dog", "my bird", "the café"], ["sees", "wants", "finds"]
    return [
        " ".join(f"{random.choice(nouns)} {random.choice(verbs)} {random.choice(nouns)}." for _ in range(12))
        for _ in range(count)
    ]
