"""The subcommand ``crontab``: runs a crontab in the foreground."""
