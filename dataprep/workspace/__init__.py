"""A build on disk: the plan, and for every stage its ledgers, payloads and commit markers.

`workspace.Workspace` opens one, `stage_store.StageStore` commits shards. May import only floor 0.
"""
