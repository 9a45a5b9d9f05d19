"""What the subcommands do, apart from their options: `bayesfs.cli` calls one function each."""
