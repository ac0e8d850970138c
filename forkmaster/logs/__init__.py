"""The error log and the access log.  Floor 2."""
