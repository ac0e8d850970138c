"""URLs of the demo project."""

from django.conf import settings
from django.contrib import admin
from django.urls import path, re_path
from django.views.static import serve

from project import views

urlpatterns = [
    path("", views.index, name="index"),
    path("upload", views.upload, name="upload"),
    path("download/<int:pk>", views.download, name="download"),
    path("stream", views.stream, name="stream"),
    path("async", views.asynchronous, name="async"),
    path("whoami", views.whoami, name="whoami"),
    path("broken", views.broken, name="broken"),
    path("admin/", admin.site.urls),
    # A proxy or a CDN does this in a deployment; here the demo stands alone.
    re_path(r"^static/(?P<path>.*)$", serve, {"document_root": settings.STATIC_ROOT}),
]
