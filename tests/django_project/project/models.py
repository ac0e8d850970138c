"""One table: notes, some with a file."""

from django.db import models


class Note(models.Model):
    """A line that a visitor left, and perhaps a file."""

    text = models.CharField(max_length=200)
    created = models.DateTimeField(auto_now_add=True)
    attachment = models.FileField(upload_to="attachments", blank=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.text
