"""The `build` stage of CorpusBuild: reads sources, filters, deduplicates, splits, and writes shards and a card.

The runtime loads `pipeline.run` by name; no package may import this one.
"""
