"""Pixels: reading and judging image files, geometry, crops and quality. RGB, (height, width, 3), uint8.

`codec.decode` and `codec.encode_jpeg` are the face. May import only floor 0.
"""
