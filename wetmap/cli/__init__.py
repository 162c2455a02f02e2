"""The command line: one thin file per verb; nothing but options, calls and printing."""
