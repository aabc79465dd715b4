"""The box a submission runs in: its own root folder, no network, limits, and an end that takes every process with it.

    python -I grader/sandbox.py SPEC.json FD    run one command in the box (runner.py does this)
    python -I grader/sandbox.py --no-network SCRIPT [ARGS]

A submission is foreign code. Where Linux permits it (user, mount, network and process namespaces), the command sees
a root folder that holds /app, the system's libraries and this Python, all read-only but the folders named writable;
no network at all; no process but its own; and no capability. Elsewhere (macOS, most containers) the same command
runs in a plain process group with `socket` patched out, which stops accidents and not attacks: `permitted()` says
which it is and why, and the report repeats it.

SPEC is {"root": folder, "command": [...], "cwd": path, "env": {...}, "writable": [paths], "visible": [paths],
"isolated": bool, "file_limit": bytes}; paths are as the command sees them. Exit status: the command's,
128 + n if signal n killed it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import signal
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLONE_NEW = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user mount pid net ipc uts
MS_BIND, MS_REC, MS_PRIVATE, MS_SAFE = 0x1000, 0x4000, 0x40000, 0xE  # MS_SAFE: nosuid, nodev, noexec
SYS_MOUNT_SETATTR, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, 0x8000, 1  # one number on every architecture since 5.12
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38

SYSTEM = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr", "/sys", "/etc/alternatives", "/etc/group", "/etc/hosts",
          "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/nsswitch.conf",
          "/etc/passwd", "/etc/ssl/certs"]  # fmt: skip
DEVICES = ["null", "zero", "full", "random", "urandom"]  # /dev itself would hand out the disks
SHARED_MEMORY = 64 << 20  # bytes of /dev/shm, Docker's default


def visible_paths(more: list[str]) -> list[str]:
    """System folders, those of this Python and `more`, outer ones first; nothing else of the user's."""
    paths = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        paths.append(site.getusersitepackages())
    paths += [*more, *SYSTEM, *map(str, Path("/dev").glob("nvidia*"))]
    return sorted({path for path in paths if os.path.lexists(path)}, key=len)


def process_table() -> dict[int, tuple[int, int]]:
    """{pid: (parent's pid, resident bytes)} of every process that can be seen; zombies count 0 bytes."""
    table = {}
    if os.path.isdir("/proc/self"):
        page = os.sysconf("SC_PAGE_SIZE")
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
                table[int(name)] = (int(fields[1]), int(fields[21]) * page)
            except (OSError, IndexError, ValueError):
                continue  # it ended while we looked
    else:
        rows = subprocess.run(["ps", "-axo", "pid=,ppid=,rss="], capture_output=True, text=True).stdout
        for row in rows.splitlines():
            pid, parent, kib = map(int, row.split())
            table[pid] = (parent, kib * 1024)
    return table


def descendants(pid: int, table: dict[int, tuple[int, int]] | None = None) -> list[int]:
    """Process ids of the children of `pid`, their children, and so on."""
    table = process_table() if table is None else table
    children: dict[int, list[int]] = {}
    for child, (parent, _) in table.items():
        children.setdefault(parent, []).append(child)
    found, todo = [], [pid]
    while todo:
        new = children.get(todo.pop(), [])
        found += new
        todo += new
    return found


def kill_descendants(seconds: float = 5.0) -> None:
    """Kill every descendant of this process, again and again until none is left."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        alive = descendants(os.getpid())
        if not alive:
            break
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def libc_call(name: str, *arguments) -> None:
    """Call a C library function; OSError where it answers -1."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [os.fsencode(a) if isinstance(a, str) else a for a in arguments]
    arguments = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if getattr(libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def set_read_only(path: str, read_only: bool, recursive: bool) -> None:
    attributes = (ctypes.c_uint64 * 4)()  # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    attributes[0 if read_only else 1] = MOUNT_ATTR_RDONLY
    libc_call("syscall", SYS_MOUNT_SETATTR, -1, path, AT_RECURSIVE if recursive else 0, ctypes.byref(attributes), 32)


def bind(source: str, target: str) -> None:
    """Show `source` (a file or folder) at `target`, which is created; a symbolic link is made again."""
    if os.path.lexists(target) and source != target:
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        return os.symlink(os.readlink(source), target)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        open(target, "a").close()
    libc_call("mount", source, target, None, MS_BIND | MS_REC, None)


def new_namespaces() -> None:
    user, group = os.getuid(), os.getgid()
    libc_call("unshare", CLONE_NEW)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def enter_root(root: str, writable: list[str], visible: list[str]) -> None:
    """Make `root` the root folder: system, Python and `visible` shown read-only, `writable` (as seen inside) not."""
    libc_call("mount", None, "/", None, MS_REC | MS_PRIVATE, None)
    bind(root, root)
    for path in visible_paths(visible):
        bind(path, root + path)
    for name in DEVICES:
        bind(f"/dev/{name}", f"{root}/dev/{name}")
    os.makedirs(f"{root}/dev/shm")
    libc_call("mount", "shm", f"{root}/dev/shm", "tmpfs", MS_SAFE, f"size={SHARED_MEMORY}")
    os.makedirs(f"{root}/proc", exist_ok=True)
    try:
        libc_call("mount", "proc", f"{root}/proc", "proc", MS_SAFE, None)
    except OSError:  # a container that masks parts of /proc permits no fresh one
        libc_call("mount", "/proc", f"{root}/proc", None, MS_BIND | MS_REC, None)
    writable = [root + path for path in (*writable, "/dev/shm")]
    for path in writable:
        bind(path, path)
    set_read_only(root, True, recursive=True)
    for path in writable:
        set_read_only(path, False, recursive=False)
    os.chroot(root)


def drop_privileges() -> None:
    """No capability survives the exec, not even for user 0, and none can be gained."""
    for capability in range(64):
        try:
            libc_call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError:
            break
    libc_call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def start(spec: dict) -> None:
    """In the forked child: enter the box and become the command. Never returns."""
    import resource

    try:
        if sys.platform == "linux":
            libc_call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if spec["isolated"]:
            os.setsid()  # else a signal to its own group would reach out to the supervisor
            enter_root(spec["root"], spec["writable"], spec["visible"])
            drop_privileges()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (spec["file_limit"], spec["file_limit"]))
        os.chdir(spec["cwd"])
        os.closerange(3, 256)
        os.execvpe(spec["command"][0], spec["command"], spec["env"])
    except BaseException as error:  # exec replaces this process: whatever arrives here is a failure to start
        print(f"cannot start {spec['command'][0]}: {error}", file=sys.stderr, flush=True)
    os._exit(127)


def supervise(spec: dict, peak_to: int) -> int:
    """Run the command and end with all of its processes: at its own end, or when this process gets SIGTERM.

    Writes the command's peak of resident bytes to the file descriptor `peak_to`.
    """
    if sys.platform == "linux":
        libc_call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans come to us, so none escapes the kill
    if spec["isolated"]:
        new_namespaces()
    main = os.fork()
    if main == 0:
        start(spec)

    def stop(*_):
        kill_descendants()
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    if sys.platform == "linux":
        libc_call("prctl", PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)  # whoever started us may be killed, too
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == main:
            break
    os.write(peak_to, b"%d" % (usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)))
    kill_descendants()
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


@functools.lru_cache(maxsize=1)
def permitted() -> tuple[bool, str]:
    """(True, "") where namespaces can be had and this Python still finds numpy inside; else (False, the reason)."""
    if sys.platform != "linux":
        return False, f"{sys.platform} has no namespaces"
    with tempfile.TemporaryDirectory(prefix="sandbox-") as root:
        spec = {"root": root, "command": [sys.executable, "-c", "import ctypes, zlib, numpy"], "cwd": "/",
                "env": {}, "writable": [], "visible": [], "isolated": True, "file_limit": 1 << 20}  # fmt: skip
        Path(root, "spec.json").write_text(json.dumps(spec))
        command = [sys.executable, "-I", __file__, f"{root}/spec.json", "1"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return False, "a trial run did not end"
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return done.returncode == 0, "" if done.returncode == 0 else reason


def run_without_network(arguments: list[str]) -> None:
    """Run a Python script in this process with `socket` unable to connect or to resolve names."""
    import runpy
    import socket

    def refuse(*_, **__):
        raise OSError("the network is blocked in the rehearsal")

    for name in ("connect", "connect_ex", "sendto", "sendmsg", "bind"):
        setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
        setattr(socket, name, refuse)
    sys.argv = arguments
    sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))  # in place of this file's folder
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "--no-network":
        run_without_network(sys.argv[2:])
    else:
        sys.exit(supervise(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])))
