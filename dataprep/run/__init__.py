"""Makes stages happen: plan, pending, execute, commit, report."""
