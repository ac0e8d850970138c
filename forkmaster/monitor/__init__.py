"""Shows the server to whoever watches: probes, metrics, a status page.  Reads the board alone."""
