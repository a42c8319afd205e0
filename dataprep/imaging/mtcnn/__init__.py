"""MTCNN (Zhang et al. 2016) on facenet-pytorch's weights, giving facenet-pytorch's faces."""
