"""What a user types: one file a subcommand of `gcnn`, each with a `main`.

main.py calls them by their names; arguments.py has the options that several share.
"""
