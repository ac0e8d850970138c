"""For Django projects: `manage.py forkmaster`, and what `forkmaster check --deploy` looks at.

Add "forkmaster.django" to INSTALLED_APPS for the command.
Nothing here is imported by a master or a worker.
"""
