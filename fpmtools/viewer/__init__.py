"""A page in the browser on which results are looked at: this machine only, nothing from anywhere else.

:mod:`opening` finds what a path holds, :class:`fpmtools.viewer.scene.Scene` renders it, :mod:`server` hands it to the
page in ``page/``.
"""
