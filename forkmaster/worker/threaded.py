"""placeholder"""
from forkmaster.worker.sync import SyncWorker


class ThreadedWorker(SyncWorker):
    """x"""
