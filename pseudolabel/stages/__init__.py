"""Stages: the only code that combines files, ranks and models."""
