"""The operator's vocabulary as plain data: resources and Jobs, stages, attempts, labels, back-off.

Pure: no I/O, no clock. Every other package of the operator may import it, each module by its name; it imports only
`hatchery_api`.
"""
