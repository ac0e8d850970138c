"""The board: heartbeat files in shared memory that everything that watches reads.  Floor 1."""
