"""Stand-in for gunicorn.instrument."""
