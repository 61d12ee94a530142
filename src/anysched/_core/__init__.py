"""The implementation of the scheduler. Modules import only from lower levels."""
