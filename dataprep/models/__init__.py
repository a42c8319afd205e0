"""Networks that turn aligned faces into embeddings, and their files. Training and evaluation share them."""
