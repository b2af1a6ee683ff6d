"""The service: `create_app` in app.py builds it."""
