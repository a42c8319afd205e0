"""What is trained for: margins, classification heads, PartialFC and triplets.

To add a loss: its formula in `margins`, its name in `options`, and its module in `factory`.
"""
