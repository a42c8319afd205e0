"""The command line: one click command per verb, without logic of its own.

A file holds the verbs that belong together and is named as they are typed; files with an underscore serve the others.
May import everything. Its face is `main.main`, the console script.
"""
