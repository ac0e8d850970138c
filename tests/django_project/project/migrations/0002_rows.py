from django.db import migrations

TEXTS = ("the first note", "a note with <markup> & more", "una nota con eñe")


def add_rows(apps, schema_editor):
    note = apps.get_model("project", "Note")
    for text in TEXTS:
        note.objects.create(text=text)


class Migration(migrations.Migration):
    dependencies = [("project", "0001_initial")]

    operations = [migrations.RunPython(add_rows, migrations.RunPython.noop)]
