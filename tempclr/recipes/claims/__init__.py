"""The paper's claims on generated videos: a grid of named runs, done once each, and what is read off them.

``grid`` names the runs, ``work`` does them (``data``, ``training``, ``measuring``, ``few_shot``), ``queue``
shares them out among processes, ``choice`` holds the test videos back until the recommended recipe is committed, and
``statistics``, ``tables``, ``statements``, ``page`` tell what came out. ``benchmarks/claims.py`` is the command.
"""
