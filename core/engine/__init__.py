"""Executes a spec: the preflight check, the stage plan and its keys, and the pipeline."""
