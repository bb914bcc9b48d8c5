"""What a start of the console needs beside the app: the operator's own files, and the clock of `--timing`."""
