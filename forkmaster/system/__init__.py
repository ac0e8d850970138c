"""One kernel object, one module, no policy.  Floor 1."""
