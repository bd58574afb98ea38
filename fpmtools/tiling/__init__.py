"""Fields that are solved in tiles: planned, solved anywhere, joined without a seam.

``plan`` says where the tiles are, ``focus`` at which depth each is, ``tile`` solves one, as a run in a folder of its
own, ``workers`` has many solved at a time, ``stitching`` finds what brings neighbours together, ``mosaic`` is the
result, which reads only the tiles that it needs, and ``running`` is a run of all of this. docs/slides.md tells more.
"""
