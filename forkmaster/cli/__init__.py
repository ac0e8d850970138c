"""The command line.  Floor 5."""
