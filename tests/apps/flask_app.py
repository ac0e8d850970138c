"""A Flask application."""

from flask import Flask, request

app = application = Flask(__name__)


@app.get("/")
def index():
    return f"hello {request.args['name']}\n"


@app.post("/upload")
def upload():
    return f"{request.form['name']} {len(request.files['file'].read())}\n"


@app.get("/stream")
def stream():
    return (b"line %d\n" % number for number in range(3))


@app.get("/broken")
def broken():
    raise ValueError("on purpose")
