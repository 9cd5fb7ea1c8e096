"""The training jobs: what runs in the pods, one package a kind, and the packages that they share.

No other package may import it; images start it as `python -m hatchery_jobs`.
"""
