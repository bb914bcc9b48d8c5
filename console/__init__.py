"""The operator console: a terminal app over the relay's Postgres. Reads; asks the relay for everything else."""
