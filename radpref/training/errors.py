"""The error of this room."""

from radpref.errors import RadprefError


class TrainingError(RadprefError):
    """Training that cannot start or go on; the message says what was given, why not, and what to do."""
