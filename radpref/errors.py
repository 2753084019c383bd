"""The base of all errors that a user can act on: the message says what was given, why not, and what to do."""


class RadprefError(Exception):
    """Shown without a traceback, with exit status 2."""
