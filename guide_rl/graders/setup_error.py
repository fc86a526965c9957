"""The one error that grading lets through."""


class GraderSetupError(ValueError):
    """A grader does not exist or cannot be loaded, or a problem lacks what its grader needs: not the model's fault."""
