"""The websocket side of the demo project."""

from channels.generic.websocket import AsyncWebsocketConsumer
from django.urls import path


class EchoConsumer(AsyncWebsocketConsumer):
    """Sends back what it gets."""

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)


websocket_urlpatterns = [path("ws/echo", EchoConsumer.as_asgi())]
