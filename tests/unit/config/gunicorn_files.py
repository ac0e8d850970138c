"""Configuration files in every manner that people write them, by name."""

from __future__ import annotations

FILES = {
    "nothing": "",
    "note": """
command = '/usr/bin/gunicorn'
pythonpath = 'sub'
bind = '0.0.0.0:8000'
workers = 3
""",
    "numbers as text": """
workers = "4"
threads = "2"
timeout = "120"
graceful_timeout = "0x10"
keepalive = "65"
max_requests = "1000"
max_requests_jitter = "1_00"
worker_connections = "500"
backlog = "64"
""",
    "switches as text": """
daemon = 'false'
preload_app = 'True'
reload = "FALSE"
capture_output = "true"
initgroups = 'False'
""",
    "switches": """
preload_app = True
capture_output = True
reuse_port = True
disable_redirect_access_to_syslog = True
""",
    "switches that are none": "preload_app = None\nreload = None\ndaemon = None\n",
    "numbers that are switches": "keepalive = True\nmax_requests = False\n",
    "environment": """
import os
workers = os.getenv("NO_SUCH_WORKERS", 1)
threads = os.environ.get("NO_SUCH_THREADS", "4")
bind = os.environ.get("NO_SUCH_HOST", "127.0.0.1") + ":" + os.getenv("NO_SUCH_PORT", "81")
timeout = int(os.environ.get("NO_SUCH_TIMEOUT", 30)) * 2
""",
    "arithmetic": "cores = 4\nworkers = cores * 2 + 1\nthreads = 2 * cores\n",
    "bind port": 'bind = ":6543"\n',
    "bind host": 'bind = "localhost"\n',
    "bind list": 'bind = ["0.0.0.0:8000", "127.0.0.1:9000", "unix:/run/app.sock"]\n',
    "bind tuple": 'bind = ("0.0.0.0:8000", ":9000")\n',
    "bind unix": 'name = "app"\nbind = f"unix:/run/{name}.sock"\n',
    "bind unix slashes": 'bind = "unix:///run/app.sock"\n',
    "bind unix relative": 'bind = "unix:app.sock"\n',
    "bind ipv6": 'bind = ["[::1]:8000", "[::]:9000", "[fe80::1]"]\n',
    "bind descriptor": 'bind = "fd://3"\n',
    "bind tcp": 'bind = "tcp://0.0.0.0:8000"\n',
    "bind capitals": 'bind = "LocalHost:8000"\n',
    "example": """
bind = '127.0.0.1:8000'
backlog = 2048
workers = 1
worker_class = 'sync'
worker_connections = 1000
timeout = 30
keepalive = 2
spew = False
daemon = False
raw_env = ['DJANGO_SECRET_KEY=something', 'SPAM=eggs']
pidfile = None
umask = 0
user = None
group = None
tmp_upload_dir = None
errorlog = '-'
loglevel = 'info'
accesslog = None
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
proc_name = None

def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)

def pre_fork(server, worker):
    pass

def pre_exec(server):
    server.log.info("Forked child, re-executing.")

def when_ready(server):
    server.log.info("Server is ready. Spawning workers")

def worker_int(worker):
    worker.log.info("worker received INT or QUIT signal")

def worker_abort(worker):
    worker.log.info("worker received SIGABRT signal")
""",
    "hooks": """
def on_starting(server): pass
def on_reload(server): pass
def when_ready(server): pass
def pre_fork(server, worker): pass
def post_fork(server, worker): pass
def post_worker_init(worker): pass
def worker_int(worker): pass
def worker_abort(worker): pass
def pre_exec(server): pass
def pre_request(worker, req): worker.log.debug("%s %s", req.method, req.path)
def post_request(worker, req, environ, resp): pass
def child_exit(server, worker): pass
def worker_exit(server, worker): pass
def nworkers_changed(server, new_value, old_value): pass
def on_exit(server): pass
""",
    "chdir": "chdir = './sub/'\npidfile = 'app.pid'\n",
    "umask decimal": "umask = 777\n",
    "umask octal": "umask = 0o007\n",
    "user number": "user = 1000\ngroup = 1000\n",
    "user number as text": 'user = "1000"\ngroup = "33"\n',
    "user name": 'user = "daemon"\ngroup = "daemon"\ninitgroups = True\n',
    "no limits": """
timeout = 0
graceful_timeout = 0
max_requests = 0
limit_request_line = 0
limit_request_fields = 32768
limit_request_field_size = 0
""",
    "large limits": "keepalive = 9999\nlimit_request_line = 8190\ntimeout = 100000\n",
    "unknown names": """
debug = True
thread = 4
worker_memory_limit = 512
buffer_size = 32768
django_settings = 'x'
x_forwarded_for_header = 'X-FORWARDED-FOR'
""",
    "logs": """
accesslog = '-'
errorlog = '/var/log/app.log'
loglevel = 'debug'
access_log_format = '%(h)s "%(r)s" %(s)s'
syslog = True
syslog_addr = 'unix:///dev/log#dgram'
syslog_prefix = 'app'
syslog_facility = 'daemon'
enable_stdio_inheritance = True
""",
    "logs by dictionary": """
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "handlers": {"console": {"class": "logging.StreamHandler"}},
}
""",
    "proxy": """
forwarded_allow_ips = '10.0.0.0/8,192.168.1.1'
secure_scheme_headers = {'X-Forwarded-Proto': 'https', 'X-FORWARDED-SSL': 'on'}
proxy_protocol = True
proxy_allow_ips = '*'
header_map = 'dangerous'
forwarder_headers = 'SCRIPT_NAME,remote_user'
""",
    "proxy of all": "forwarded_allow_ips = '*'\nproxy_protocol = 'v2'\nheader_map = 'REFUSE'\n",
    "proxy of none": "forwarded_allow_ips = ''\nproxy_protocol = False\n",
    "workers sync": "worker_class = 'sync'\n",
    "workers gthread": "worker_class = 'gthread'\nthreads = 4\n",
    "workers gevent": "worker_class = 'gevent'\nworker_connections = 100\n",
    "workers eventlet": "worker_class = 'eventlet'\n",
    "workers tornado": "worker_class = 'tornado'\n",
    "workers uvicorn": "worker_class = 'uvicorn.workers.UvicornWorker'\nworkers = 2\n",
    "workers uvicorn h11": "worker_class = 'uvicorn.workers.UvicornH11Worker'\n",
    "workers uvicorn package": "worker_class = 'uvicorn_worker.UvicornWorker'\n",
    "workers asgi": """
worker_class = 'asgi'
asgi_loop = 'uvloop'
asgi_lifespan = 'off'
root_path = '/app'
websocket_max_message_size = 1048576
asgi_disconnect_grace_period = 5
http_parser = 'fast'
""",
    "environment of the app": "raw_env = ['A=1', 'B=a=b', 'C=']\nproc_name = ' app '\n",
    "environment as text": "raw_env = 'A=1'\n",
    "reload": "reload = True\nreload_engine = 'poll'\nreload_extra_files = ['conf.py', '*.html']\n",
    "temporary folder": "worker_tmp_dir = '/dev/shm'\n",
    "statsd": "statsd_prefix = 'app'\ndogstatsd_tags = 'a:b,c:d'\nenable_backlog_metric = True\n",
    "http2": """
http_protocols = 'h1'
http2_cleartext = True
http2_max_concurrent_streams = 50
http2_initial_window_size = 131072
http2_max_frame_size = 32768
http2_max_header_list_size = 1000
""",
    "dirty": "dirty_apps = ['a:B']\ndirty_workers = 2\ndirty_timeout = 60\ndirty_threads = 2\n",
    "control": "control_socket_disable = True\ncontrol_socket_mode = 0o660\n",
    "lenient parser": """
permit_obsolete_folding = True
strip_header_spaces = True
permit_unconventional_http_method = True
permit_unconventional_http_version = True
casefold_http_method = True
""",
    "two branches": """
import sys
if sys.platform == "nothing":
    workers = 99
else:
    workers = 5
try:
    timeout = undefined
except NameError:
    timeout = 44
""",
    "computed by a function": """
def count():
    return 6
workers = count()
globals()["threads"] = 3
""",
    "logger of its own": """
from gunicorn import glogging

class CustomLogger(glogging.Logger):
    def setup(self, cfg):
        super().setup(cfg)

logger_class = CustomLogger
""",
    "logger as a path": "logger_class = 'project.logs.Logger'\n",
    "worker of its own": """
from uvicorn.workers import UvicornWorker

class HeadlessWorker(UvicornWorker):
    CONFIG_KWARGS = {"lifespan": "off", "server_header": False}

worker_class = HeadlessWorker
workers = 2
""",
    "worker as a path": "worker_class = 'project.workers.HeadlessWorker'\n",
    "prints": "print('loading the configuration')\nworkers = 3\nprint(f'{workers} workers')\n",
    "limits that gunicorn has not": "max_worker_memory = 200\nworker_memory_limit = 512\n",
    "name": "name = 'shop'\nthread = 4\nproc_name = name\n",
    "as images have it": """
import json
import multiprocessing
import os

workers_per_core_str = os.getenv("WORKERS_PER_CORE", "1")
max_workers_str = os.getenv("MAX_WORKERS")
use_max_workers = int(max_workers_str) if max_workers_str else None
web_concurrency_str = os.getenv("WEB_CONCURRENCY", None)
host = os.getenv("HOST", "0.0.0.0")
port = os.getenv("PORT", "80")
bind_env = os.getenv("BIND", None)
use_loglevel = os.getenv("LOG_LEVEL", "info")
use_bind = bind_env if bind_env else f"{host}:{port}"
cores = multiprocessing.cpu_count()
default_web_concurrency = float(workers_per_core_str) * cores
if web_concurrency_str:
    web_concurrency = int(web_concurrency_str)
    assert web_concurrency > 0
else:
    web_concurrency = max(int(default_web_concurrency), 2)
    if use_max_workers:
        web_concurrency = min(web_concurrency, use_max_workers)
accesslog_var = os.getenv("ACCESS_LOG", "-")
use_accesslog = accesslog_var or None
errorlog_var = os.getenv("ERROR_LOG", "-")
use_errorlog = errorlog_var or None
loglevel = use_loglevel
workers = web_concurrency
bind = use_bind
errorlog = use_errorlog
worker_tmp_dir = "/dev/shm"
accesslog = use_accesslog
graceful_timeout = int(os.getenv("GRACEFUL_TIMEOUT", "120"))
timeout = int(os.getenv("TIMEOUT", "120"))
keepalive = int(os.getenv("KEEP_ALIVE", "5"))
print(json.dumps({"workers": workers, "bind": bind}))
""",
    "software hidden": "import gunicorn\ngunicorn.SERVER_SOFTWARE = 'x'\nworkers = 2\n",
    "imports": """
from os import path
from multiprocessing import cpu_count as cores
import logging, ssl
raw_env = [f"HERE={path.basename('/srv/project')}"]
workers = min(cores(), 1) + 1
""",
    "everything empty": """
pidfile = None
accesslog = None
user = None
group = None
tmp_upload_dir = None
proc_name = None
worker_tmp_dir = None
certfile = None
keyfile = None
ca_certs = None
ciphers = None
paste = None
logconfig = None
statsd_host = None
pythonpath = None
umask = 0
""",
    "lists": """
bind = [f"127.0.0.1:{8000 + n}" for n in range(3)]
raw_env = ["A=1"] + [f"B{n}={n}" for n in range(2)]
reload_extra_files = []
forwarded_allow_ips = ','.join(["10.0.0.1", "10.0.0.2"])
""",
    "hooks that are lambdas": """
on_starting = lambda server: None
post_fork = lambda server, worker: server.log.info(worker.pid)
pre_request = lambda worker, req: None
post_request = lambda worker, req, environ, resp: None
worker_exit = lambda server, worker: None
""",
    "hooks of objects": """
class Metrics:
    def started(self, server): ...
    def forked(self, server, worker): ...
    @staticmethod
    def exited(server, worker): ...

metrics = Metrics()
when_ready = metrics.started
post_fork = metrics.forked
child_exit = Metrics.exited
""",
    "hooks by path": "on_exit = 'posixpath.basename'\n",
}
