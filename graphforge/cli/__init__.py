"""The command line: one file per verb; only `main` ends the process."""
