"""The subcommands: their options in `bayesfs.commands.subcommands`, and what each does."""
