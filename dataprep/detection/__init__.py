"""Finds faces and their five landmarks: MTCNN with facenet-pytorch's weights, in C and in torch.

`mtcnn.make_detector` picks a backend, `base` says what a detector gives. May import `imaging`.
"""
