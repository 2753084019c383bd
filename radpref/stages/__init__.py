"""What each stage declares and does: 15 to 60 lines each, between tables of rows and the rooms that know how.

``radpref.runs.stage`` says what a declaration is; ``radpref.pipeline`` puts stages together into methods.
"""
