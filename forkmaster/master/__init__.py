"""The master process: waits, decides, performs.  Floor 4."""
