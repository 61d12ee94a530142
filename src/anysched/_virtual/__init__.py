"""Virtual time: what stands behind `anysched.testing`.

``_timeline`` is virtual time itself and knows no event loop. ``_asyncio`` and ``_trio`` make an event loop live by it,
each in one place. ``_clock`` is what users hold in their hands. ``_time_machine`` lets the rest of the process see it.
"""
