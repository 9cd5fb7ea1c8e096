"""The operator: watches the four resources and runs their stages as Jobs.

No other package may import it; images start it as `python -m hatchery_operator`. `__main__` assembles the packages
below; of each, outsiders import only what its `__init__` exports.
"""
