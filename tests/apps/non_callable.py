"""`application` is not an application."""

application = {"not": "callable"}
