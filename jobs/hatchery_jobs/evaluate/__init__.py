"""The stage of EvalRun: measures what a model can do."""
