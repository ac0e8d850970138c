"""The admin of the notes."""

from django.contrib import admin

from project.models import Note


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):
    """Notes in the admin."""

    list_display = ("text", "created")
