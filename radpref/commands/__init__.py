"""Commands that need no run folder: ``radpref corrupt``, ``radpref findings`` and ``radpref judges``."""

from radpref.commands.bench import bench
from radpref.commands.corrupt import corrupt_app
from radpref.commands.findings import findings_app
from radpref.commands.judges import judges_app

__all__ = ["bench", "corrupt_app", "findings_app", "judges_app"]
