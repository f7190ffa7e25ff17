"""What a user types: one file a subcommand of `gcnn`, each with a `main`."""
