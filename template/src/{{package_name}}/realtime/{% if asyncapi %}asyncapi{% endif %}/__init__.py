"""The messages, documented: /asyncapi, read from the listeners and from the messages themselves.

The template's: `copier update` improves it; read it freely, edit it rarely.

| module      | what it is                                                       |
|-------------|------------------------------------------------------------------|
| plugin.py   | `Documentation`: what `app.py` plugs into Litestar                 |
| channels.py | what is said and heard on the path of a listener                  |
| examples.py | an example of a message                                          |
| __main__.py | the command that writes the document, or the schemas in it       |
"""

from .plugin import Documentation

__all__ = ("Documentation",)
