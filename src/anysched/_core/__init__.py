"""The scheduler: what the public names of `anysched` are made of. Imports go to lower levels only."""
