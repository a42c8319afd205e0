"""Looking at a workspace's samples: what is known of each (`samples`), and sheets of their pictures (`sheet`).

Faces of this package: `find_samples` and `write_sheet`. It may import the pipeline and everything below it.
"""
