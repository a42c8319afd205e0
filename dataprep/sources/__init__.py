"""Published lists, folders of photos and packs of others, as samples for the plan.

`base` says what a source is, `catalog` makes one of a recipe's `source:`. May import `packs`, `workspace` and `synth`.
"""
