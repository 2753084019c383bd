"""Commands that need no run folder: ``radpref findings`` and ``radpref judges``."""

from radpref.commands.findings import findings_app
from radpref.commands.judges import judges_app

__all__ = ["findings_app", "judges_app"]
