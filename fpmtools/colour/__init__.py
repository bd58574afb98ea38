"""Several colours of one sample: each solved by a run of its own, brought onto each other, and shown as a picture.

``registration`` finds where each colour lies and moves it there, ``result`` is what they make together, which reads
only what it is asked for, and ``running`` is a run of all of this. docs/colour.md tells more.
"""
