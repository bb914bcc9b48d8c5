"""Values and rules of the relay. No I/O: nothing here opens a file, a socket or a connection."""
