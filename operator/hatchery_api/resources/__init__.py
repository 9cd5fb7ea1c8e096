"""The four resources: one module or package a kind, named as its stage module in the operator and its package in jobs.

Every side imports a kind's models from `hatchery_api.resources.<kind>`, never from a module below it.
"""
