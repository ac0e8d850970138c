# A Gunicorn configuration file; forkmaster reads it as it is.
from pathlib import Path

# location of the gunicorn executable (an old habit; neither server reads it)
command = "/usr/bin/gunicorn"
# location of manage.py
pythonpath = str(Path(__file__).resolve().parent.parent / "tests" / "django_project")
# binding port
bind = "0.0.0.0:8000"
# number of workers
workers = 3
