"""A Pyramid application, made by a function as its `main` is."""

from pyramid.config import Configurator
from pyramid.response import Response


def index(request):
    return Response(f"hello {request.params['name']}\n")


def upload(request):
    part = request.POST["file"]
    return Response(f"{request.POST['name']} {len(part.file.read())}\n")


def stream(request):
    return Response(app_iter=(b"line %d\n" % number for number in range(3)))


def broken(request):
    raise ValueError("on purpose")


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        for view in (index, upload, stream, broken):
            name = "" if view is index else view.__name__
            config.add_route(view.__name__, f"/{name}")
            config.add_view(view, route_name=view.__name__)
        return config.make_wsgi_app()
