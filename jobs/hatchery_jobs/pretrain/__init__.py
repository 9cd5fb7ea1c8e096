"""Pretraining: `encode` makes token shards from corpora, `train` makes a model from them under torchrun."""
