"""Searching for networks: a table in, a table out. What needs data gets a trial handed in (:mod:`.trials`)."""
