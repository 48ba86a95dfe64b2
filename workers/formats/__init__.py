"""What data sets may come as, and how each becomes the arrays that jobs read (``workers.arrays``).

A reader looks at the file's headers and returns columns whose rows it reads when asked; nothing is ever held whole. All of this
runs in the inspecting process, since every byte of an upload comes from outside.
"""
