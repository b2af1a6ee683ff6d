"""The same two paths on other servers, as the documentation of each writes them, as small as they can be.

`/ws/echo` and, where a server has a way to reach many, `/ws/rooms/{room}`, with the messages of the service's contract.
"""

ID = "0123456789abcdef0123456789abcdef"
"""In the place of the id and the count of a connection, so that each message is as long as the service's."""
