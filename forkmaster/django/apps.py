"""The application that INSTALLED_APPS names."""

from __future__ import annotations

from django.apps import AppConfig


class ForkmasterConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    name = "forkmaster.django"
    # By default it would be the last part of the name, which Django may want for itself.
    label = "forkmaster"
    verbose_name = "forkmaster"
