"""Stand-in for gunicorn.app."""
