"""The corpus stage: sources are read, filtered, freed of duplicates, split and written as shards."""
