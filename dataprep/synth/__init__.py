"""Drawn faces with exact ground truth, and a drawn web that fails as the real one does: for tests and the demo.

`photos.draw` and `photos.draw_folder` draw, `web.publish` and `web.serve_forever` serve. May import `imaging`.
"""
