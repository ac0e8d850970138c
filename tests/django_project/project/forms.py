"""The forms of the pages."""

from django import forms

from project.models import Note


class NoteForm(forms.ModelForm):
    """A note without a file."""

    class Meta:
        model = Note
        fields = ("text",)


class UploadForm(forms.ModelForm):
    """A note that must have a file."""

    attachment = forms.FileField(required=True)

    class Meta:
        model = Note
        fields = ("text", "attachment")
