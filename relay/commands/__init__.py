"""The subcommands of `relay`, a module each: they parse, call and print. Imported only when they are run."""
