"""Runs stages: which shards are pending and why, workers, commits, and what keeps a workspace in order afterwards.

`pipeline.Pipeline` is all stages with their parameters, `runner.run` makes what is pending happen, `maintenance` answers
`status`, `retry` and `gc`. May import the stages and everything below them; `train` and `evaluate` it does not know.
"""
