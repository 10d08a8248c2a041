"""What is looked at before a long run: one module a family of checks, each check a function that gives a `Finding`."""

from mae_lightning.planning.checks.finding import Finding

__all__ = ["Finding"]
