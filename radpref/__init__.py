"""radpref: preference alignment for radiology vision-language models, without human feedback.

The rooms, from the bottom up: ``records`` and ``store`` (typed rows and their tables), ``recipe`` (what a run
does), ``data``, ``tasks``, ``findings``, ``models``, ``judges``, ``pairs``, ``losses``, ``training``,
``evaluation``, ``report``, then ``stages``, ``pipeline`` and ``cli``. docs/architecture.md draws them.
"""

__version__ = "0.1.0"
