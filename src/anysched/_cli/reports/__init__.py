"""How a running schedule is reported: lines, JSON objects or a live table."""
