"""Promotes, archives and cleans up versions after they are registered."""
