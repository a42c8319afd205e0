"""Fetches photos from many hosts at once, politely and suspiciously; knows nothing of stages.

`downloader.Downloader` is the engine; `client` asks for one URL, `host_queue` says which may be asked next, `outage` tells a
dead network from dead links, `writer` judges and stores what came. May import `workspace.journal` and `imaging.sniff`.
"""
