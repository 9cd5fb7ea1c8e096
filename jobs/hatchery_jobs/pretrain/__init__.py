"""Pretraining: `encode` makes token shards from corpora, `train` makes a model from them under torchrun.

Only the runtime imports these two modules, by name. The packages `data`, `launcher`, `model`, `record` and `report`
never import torch, nor do `encode` and `preflight`.
"""
