"""One relay process: its services, its workers and their supervisor."""
