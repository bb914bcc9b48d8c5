"""The terminal that the console runs on: what it can show, its title, and its input. Knows no screen."""
