"""The command line's ``crontab``: runs a crontab in the foreground."""
