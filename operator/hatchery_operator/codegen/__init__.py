"""Writes the generated files of the operator: RBAC, chart values and templates, reference pages.

Development only: nothing may import it at run time. Run it with `python -m hatchery_operator.codegen.generate`.
"""
