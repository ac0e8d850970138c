"""A Flask application."""

from flask import Flask, request

app = application = Flask(__name__)


@app.get("/")
def index():
    return "hello from flask\n"


@app.post("/form")
def form():
    return {"name": request.form["name"], "size": len(request.files["file"].read())}
