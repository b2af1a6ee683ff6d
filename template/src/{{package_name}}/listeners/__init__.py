"""Yours: the listeners, one file for each. `app.py` names them in its `route_handlers`."""
