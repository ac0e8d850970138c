"""The command line: reads words, calls the master or asks a running one.  Floor 5."""
