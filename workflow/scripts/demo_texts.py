"""Collect the docstring task and generate the request task, and the prose that the demo's models are trained on."""
