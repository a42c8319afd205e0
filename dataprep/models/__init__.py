"""Networks and their files: ours, and the field's published weights.

`registry.build` makes a network, `model_files` reads and writes ours, `pretrained` reads those of others, `export` writes
ONNX and safetensors. May import nothing of dataprep above floor 0.
"""
