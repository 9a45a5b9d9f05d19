"""The command `bayesfs`: its options in `subcommands`, and what each does."""
