"""Blocks the network for accidents: sockets neither connect nor resolve names. Imported when a plain process starts."""

import socket


def refuse(*_, **__):
    raise OSError("the network is blocked in the rehearsal")


for name in ("connect", "connect_ex", "sendto", "sendmsg", "bind"):
    setattr(socket.socket, name, refuse)
for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
    setattr(socket, name, refuse)
