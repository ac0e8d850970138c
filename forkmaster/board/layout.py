"""The bytes of a slot: one heartbeat file, as 8-byte words.

A slot is written by one process and read by any.  There is no lock: an aligned 8-byte store
is atomic on every machine that runs Linux, so a reader sees each word either before or after.
Times are CLOCK_MONOTONIC nanoseconds; 0 means "never".

    word 0..15     identity, state, beat
    word 16..47    counters, which only grow (but CONNECTIONS and IN_FLIGHT, which are levels)
    word 48..54    in the master's slot: how many processes ended, by cause
    word 64..447   histograms of request durations, one for each class of status as in STATUS:
                   word i counts the durations of i bits, from 2**(i-1) up to 2**i nanoseconds
    byte 3584..    records: the requests in flight and the last ones finished

**Records.**  One table serves as the list of requests in flight and as the ring of the last ones:
a request takes the record that was finished longest ago, so what is not in flight is history.
(A sync worker that is given many requests at once uses one record for all of them, one after
another, and the next for the next wake-up: memory that is warm costs half.)
A record is in flight while its END is 0 and its START is not.  START doubles as the sequence
number that makes the strings safe to read: the writer stores 0, then the strings, then the new
START; a reader copies, then looks whether START is still what it was, and drops the copy if not.
START is the last word, so that one `pack_into` does all of it: it clears the whole record first.
The request is kept as the first bytes of its head, as received; a reader cuts it at the first
CR.  Formatting it would cost the worker more than the rest of the record together.
On a machine that reorders stores (arm64) a reader may still see a mixed string; it is a display.

**Counting costs.**  A store into a mapping takes 35 ns from Python, an increment 70, and a sync
worker answers in 10 us.  So it increments one word for each request, in a histogram, from which
readers get the counts by status as well (counters.py), and ends a record with one `pack_into`.
A histogram has a word for each length that a duration can have, so that finding the word is one
look into a tuple and an addition.  Bytes and busy time are added once for all requests of a
wake-up, but at once after one that took long; a worker that is killed takes with it those that
were not added yet.  IN_FLIGHT is for workers that can serve more than they have records for.

**The master's slot** has the same layout, no records, and in its counters the sum over all the
dead.  FOLDS is odd while a dead child is added to it and its file removed, so that a reader that
sums master and children sees each child once.
"""

from __future__ import annotations

from struct import Struct

VERSION_NUMBER = 3
MAGIC = 0x464D_5301_0000_0000 | VERSION_NUMBER  # "FMS" and the format

# Identity and life, words 0 to 15.
MAGIC_WORD = 0
PID = 1
SERIAL = 2
GENERATION = 3
STARTED = 4  # when the process was forked
READY = 5  # when it became ready
KIND = 6  # an index into KINDS
STATE = 7  # a value of State below
FLAGS = 8  # bits: WANT_RECYCLE …
BEAT = 9  # "my loop ran at T"
RECORD_COUNT = 10
EXTENDED = 11  # "do not judge my beat before T", asked for by the application
FOLDS = 12  # in the master's slot: odd while a dead child is being folded in
LOG_LEVEL = 13  # the one word that the master writes: the level it asks for, 0 for "as it is"

# Counters, words 16 to 47.
# + status // 100: word 16 counts those never answered, 17 to 21 1xx to 5xx.  Those without a
# duration: refused by the server itself, or websockets.
STATUS = 16
BYTES_IN = 22
BYTES_OUT = 23
ERRORS = 24  # requests whose application raised
CONNECTIONS = 25  # open now (a level)
ACCEPTED = 26
HANDED_OFF = 27  # idle connections passed to a sibling
ADOPTED = 28  # and taken from one
WEBSOCKETS = 29  # sessions opened
BUSY = 30  # nanoseconds spent in requests
CPU = 31  # nanoseconds of processor time, as of the last beat that looked
IN_FLIGHT = 32  # requests being served now (a level; may exceed the records)
REFUSED = 33  # requests answered 4xx by the server itself, before the application
LINES_LOST = 34  # lines of the logs that could not be written

FIRST_COUNTER = 16
LAST_COUNTER = 47
LEVELS = frozenset({CONNECTIONS, IN_FLIGHT})

# What readers call the counters.  Busy and CPU time stay integers of nanoseconds, so that sums
# over years are exact.
COUNTERS = {
    "unanswered": STATUS,
    "status_1xx": STATUS + 1,
    "status_2xx": STATUS + 2,
    "status_3xx": STATUS + 3,
    "status_4xx": STATUS + 4,
    "status_5xx": STATUS + 5,
    "bytes_in": BYTES_IN,
    "bytes_out": BYTES_OUT,
    "errors": ERRORS,
    "connections": CONNECTIONS,
    "accepted": ACCEPTED,
    "handed_off": HANDED_OFF,
    "adopted": ADOPTED,
    "websockets": WEBSOCKETS,
    "busy_nanoseconds": BUSY,
    "cpu_nanoseconds": CPU,
    "in_flight": IN_FLIGHT,
    "refused": REFUSED,
    "lines_lost": LINES_LOST,
}

# In the master's slot, words 48 to 54: how many processes ended for each of these causes.
DEATHS_FIRST_WORD = 48
DEATHS = (
    "requested",
    "limit",
    "timeout",
    "boot failure",
    "signal",
    "out of memory",
    "exit code",
)

HISTOGRAM = 64
HISTOGRAM_SIZE = 64  # words
CLASSES = 6
# The first word of a histogram by status: like STATUS, and what is no status counts as unanswered.
HISTOGRAMS = tuple(
    HISTOGRAM + HISTOGRAM_SIZE * (status // 100 if status < 100 * CLASSES else 0)
    for status in range(1000)
)
LAST_HISTOGRAM_WORD = HISTOGRAM + HISTOGRAM_SIZE * CLASSES - 1
# What readers make of one: bucket i ends at 2**i units, the first and the last have all beyond.
BUCKETS = 32
BUCKET_BITS = 10
BUCKET_UNIT = 1 << BUCKET_BITS  # nanoseconds

# Records, from byte 3584.
RECORDS_OFFSET = 3584
RECORD_SIZE = 320
RECORD_WORDS = RECORD_SIZE // 8
RECORDS_FIRST_WORD = RECORDS_OFFSET // 8
# Offsets in a record, in words.
RESPONSE_STATUS = 0
SENT = 1  # bytes of the answer
END = 2
THREAD = 3  # native thread id, 0 if the main thread
START = 39
# Offsets in a record, in bytes.
CLIENT_OFFSET = 32
CLIENT_SIZE = 64
REQUEST_OFFSET = 96
REQUEST_SIZE = 216  # method, space and some 200 bytes of the target

# What is stored when a request begins: all zeros, its strings (cut, or padded with NUL, and one NUL
# behind each), START.  And when it ends: everything from RESPONSE_STATUS to END.
BEGINNING = Struct(f"{CLIENT_OFFSET}x{CLIENT_SIZE - 1}sx{REQUEST_SIZE - 1}sxQ")
ENDING = Struct("3Q")
assert REQUEST_OFFSET == CLIENT_OFFSET + CLIENT_SIZE
assert BEGINNING.size == RECORD_SIZE == 8 * (START + 1)
assert ENDING.size == 8 * (END + 1)

HISTORY = 8  # records beyond those that can be in flight
ASYNC_RECORDS = 16  # in flight at once in an asgi worker; more are served but not shown

KINDS = (
    "unknown",
    "sync",
    "threaded",
    "asgi",
    "master",
    "zygote",
    "monitor",
    "validator",
    "preflight",
    "watcher",
)

# Values of STATE, as the worker itself sees its life.
STARTING, SERVING, DRAINING, EXITING = 1, 2, 3, 4
STATES = ("unknown", "starting", "serving", "draining", "exiting")

# Bits of FLAGS.
WANT_RECYCLE = 1  # a limit was reached; replace me
LEFT = 2  # what was queued at the listeners is taken; no new connection is
WANT_RECYCLE_REASON_SHIFT = 8  # the reason, as an index into RECYCLE_REASONS
RECYCLE_REASONS = ("", "max_requests", "max_worker_lifetime", "max_worker_memory", "stuck thread")


def slot_size(records: int) -> int:
    """The size in bytes of a slot with room for `records` records, in whole pages."""
    return -(-(RECORDS_OFFSET + records * RECORD_SIZE) // 4096) * 4096
