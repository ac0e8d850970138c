#!/bin/sh
# What a platform that sets PORT runs: forkmaster then listens on 0.0.0.0:$PORT by itself, and
# WEB_CONCURRENCY, if it is set, is the number of workers.
exec forkmaster \
    --worker-tmp-dir /dev/shm \
    --access-logfile - \
    --capture-output \
    project.wsgi
