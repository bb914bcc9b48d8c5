"""Stand-ins for Chatwoot and the Agent SDK, and the demo that plays an outage between them.

Real HTTP servers, for `relay demo`, for drills, and for the tests. Nothing that serves real traffic imports
this package.
"""
