"""What runs in a worker process.  Floor 3."""
