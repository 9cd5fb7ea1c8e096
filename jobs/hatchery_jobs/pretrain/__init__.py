"""The stages of a PretrainRun: `encode` turns corpora into tokens, `train` trains the model.

`runtime.run` imports the two stages by name; nothing else outside may import from here. `data`, `objectives`, `model`,
`launcher`, `record` and `report` work without torch; `distributed`, `training`, `checkpoint` and `telemetry` need it.
`state` holds what checkpoint, record and telemetry share.
"""
