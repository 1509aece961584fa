"""The errors that users meet: a line each, which says what is wrong and what to do next."""


class OfaDeployError(Exception):
    """Base of every error that a user can cause and mend; the command line prints it and exits with 2."""

    def __str__(self) -> str:
        """The message as one line that a terminal shows as it is, whatever a file has put into it."""
        return "".join(c if c.isprintable() else " " for c in super().__str__())


class ArchError(OfaDeployError):
    """An architecture is malformed or outside its search space."""


class ArtifactError(OfaDeployError):
    """A file is missing, damaged, of another kind, or cannot be written."""


class DataError(OfaDeployError):
    """Images or labels are missing or unusable."""


class MeasureError(OfaDeployError):
    """A measurement could not be made or trusted."""


class InfeasibleError(OfaDeployError):
    """No architecture of the space fits the budget."""
