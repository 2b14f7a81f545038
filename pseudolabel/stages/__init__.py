"""Stages: the only place where files, ranks and models meet."""
