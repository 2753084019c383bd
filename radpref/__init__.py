"""radpref: preference alignment for radiology vision-language models, without human feedback.

The rooms, from the bottom up: ``records`` and ``store`` (typed rows and their tables), ``recipe`` (what a run
does), ``data``, ``tasks``, ``findings``, ``models``, ``judges``, ``pairs``, ``losses``, ``training``,
``evaluation``, ``report``, then ``stages``, ``pipeline`` and ``cli``. docs/architecture.md draws them.
"""

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # a medical tool reports to nobody

__version__ = "0.1.0"
