"""Unsupervised domain adaptive semantic segmentation by deliberated domain bridging (DDB).

The command line is the front door: ``domainbridge run RECIPE``. ``docs/how-it-works.md`` walks
through the source from a recipe to its result.
"""

__all__ = ["__version__"]
__version__ = "0.1.0"
