"""The operator: watches the four resources and runs their stages as Jobs."""
