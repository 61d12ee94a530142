"""Looking into the store of a durable scheduler from the command line, and moving it: ``anysched durable``."""
