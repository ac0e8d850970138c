"""One view for each thing a server must get right under Django."""

import asyncio
import time

from django.contrib.auth.decorators import login_required
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import get_object_or_404, redirect, render

from project.forms import NoteForm, UploadForm
from project.models import Note


def index(request: HttpRequest) -> HttpResponse:
    """The notes, and a form to add one."""
    form = NoteForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        return redirect("index")
    return render(request, "project/index.html", {"notes": Note.objects.all(), "form": form})


@login_required
def upload(request: HttpRequest) -> HttpResponse:
    """Takes a file from a visitor who has logged in."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        note = form.save()
        return redirect("download", pk=note.pk)
    return render(request, "project/upload.html", {"form": form})


def download(request: HttpRequest, pk: int) -> FileResponse:
    """The file of a note, as an attachment."""
    note = get_object_or_404(Note.objects.exclude(attachment=""), pk=pk)
    return FileResponse(note.attachment.open("rb"), as_attachment=True)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """`lines` lines, `delay` seconds apart, without a Content-Length."""
    lines = int(request.GET.get("lines", "10"))
    delay = float(request.GET.get("delay", "0"))

    def produce():
        for number in range(lines):
            time.sleep(delay)
            yield f"line {number}\n"

    async def produce_async():
        for number in range(lines):
            await asyncio.sleep(delay)
            yield f"line {number}\n"

    is_async = hasattr(request, "scope")
    return StreamingHttpResponse(
        produce_async() if is_async else produce(), content_type="text/plain"
    )


async def asynchronous(request: HttpRequest) -> JsonResponse:
    """An async view with an async query; `delay` seconds of sleep."""
    await asyncio.sleep(float(request.GET.get("delay", "0")))
    return JsonResponse({"notes": await Note.objects.acount()})


def whoami(request: HttpRequest) -> JsonResponse:
    """What Django was told about the client and the connection."""
    return JsonResponse(
        {
            "user": request.user.get_username(),
            "address": request.META.get("REMOTE_ADDR"),
            "scheme": request.scheme,
            "host": request.get_host(),
            "path": request.path,
            "query": request.GET.dict(),
        }
    )


def broken(request: HttpRequest) -> HttpResponse:
    """Raises, as views do."""
    raise RuntimeError("this view is broken")
