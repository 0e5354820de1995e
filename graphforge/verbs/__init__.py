"""The verbs of the command line as functions, one a file; `graphforge.NAME` is the function NAME of the file NAME."""
