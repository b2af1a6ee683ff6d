"""Who may connect: JSON Web Tokens (RFC 7519), checked before a handshake is accepted.

The template's: `copier update` improves it; read it freely, edit it rarely.

| module         | what it is                                                           |
|----------------|----------------------------------------------------------------------|
| plugin.py      | `Auth`: what `app.py` plugs into Litestar; which tokens are good      |
| handshake.py   | no WebSocket without a token, and none for longer than its token      |
| credentials.py | the places where a token may stand                                    |
| logout.py      | `POST /logout`: end a token, and the connections of its user          |
| settings.py    | the secret, and what a token must say                                 |
| token.py       | the command that makes a token, for development                       |
"""

from .logout import logout
from .plugin import Auth

__all__ = ("Auth", "logout")
