"""The operator: watches the four resources and runs their stages as Jobs; only its tests and the image import it."""
