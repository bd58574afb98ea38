"""Runs: one solver on one data set, as a thing of its own.

``spec`` says what is to be run, ``running`` runs it, ``folder`` is where all that came out of it is kept and what a
resume goes by, ``worker`` is a run in a process of its own. After the solve ``measuring`` takes the numbers and has the
pictures drawn, one of the ``tasks`` after the other, with a ``journal``; ``document`` is what ``run.json`` says of all
that.
"""
