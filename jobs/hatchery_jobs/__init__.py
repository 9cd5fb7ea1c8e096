"""The training jobs: what runs in the pods, one package a kind, and the packages that they share."""
