"""Runs a program in a user namespace in which root is user 1000: `python user_namespace.py PROGRAM ARGUMENT …`.

PostgreSQL refuses to run as root. In the namespace (user_namespaces(7)) the process has another number and the same
files and rights, so that no account is created and no directory is opened to others. Ends with status 1 where the
system allows no user namespace, as most containers do. Imports nothing of the relay.
"""

import ctypes
import os
import sys

_CLONE_NEWUSER = 0x10000000
_UID = 1000


def enter() -> None:
    """Move this process into a new user namespace.

    Raises:
        OSError: the system refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{_UID} 0 1"), ("gid_map", f"{_UID} 0 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


if __name__ == "__main__":
    try:
        enter()
    except OSError as error:
        sys.exit(f"no user namespace: {error}")
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - the caller names the program
