"""Virtual time: the implementation of `anysched.testing`.

``timeline`` is virtual time itself and independent of event loops. ``asyncio`` and ``trio`` each make an event loop run
in it. ``clock`` is its public API. ``time_machine`` shows it to the rest of the process.
"""
