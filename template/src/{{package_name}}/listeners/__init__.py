"""Yours: the listeners, one in each file. app.py names them in its `route_handlers`."""
