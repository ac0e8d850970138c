"""Settings of the property tests."""

from hypothesis import settings

# A busy machine is no failure, and says nothing about the code.
settings.register_profile("http", deadline=None)
settings.load_profile("http")
