"""Plan, run and store measurements."""
