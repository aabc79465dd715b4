"""The sandbox for a submission: its own root folder, no network, limits; at the end it kills every process inside.

    python -I grader/sandbox.py SPEC FD        (runner.py does this)

Where Linux permits namespaces, the command sees a root folder that holds /app, the system's libraries and this Python,
all read-only. Writable folders lie in a tmpfs of fixed size; /app/output is copied out at the end. It has no network,
no capabilities and no keyring, and sees only its own processes. Elsewhere it runs in a plain process group.
`permitted()` says which of the two applies, and why.

SPEC is JSON: {"root": folder with app/, env/ and tmp/, "command": [...], "env": {...}, "writable": [folders of /app
besides program and output], "isolated": bool, "disk": bytes}. Exit status: the command's, or 128 + n if signal n killed
it. It writes {"peak": resident bytes, "disk": whether it wrote more than `disk` bytes} to the file descriptor FD.
"""

import collections
import contextlib
import ctypes
import errno
import functools
import json
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CLONE_NEW = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user mount pid net ipc uts
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MS_SAFE, MS_NOEXEC = 0xE, 0x8  # MS_SAFE: nosuid, nodev, noexec
SYS_MOUNT_SETATTR, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, 0x8000, 1  # one number on all architectures (Linux 5.12)
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 36, 38
AF_VSOCK = 40
# {machine: (audit architecture, number of socket, of (add_key, request_key, keyctl))}: linux/audit.h, syscall tables
CALLS = {"x86_64": (0xC000003E, 41, (248, 249, 250)), "aarch64": (0xC00000B7, 198, (217, 218, 219))}

# Of /dev only these, since all of it would expose the disks.
SYSTEM = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64",
          "/usr/libexec", "/usr/share", "/usr/local/bin", "/usr/local/lib", "/usr/local/cuda", "/sys",
          "/etc/alternatives", "/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
          "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/ssl/certs",
          "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]  # fmt: skip
SHARED_MEMORY = 64 << 20  # bytes of /dev/shm, Docker's default


def visible_paths(env: str) -> list[str]:
    """System folders, bin and lib of this Python, and where the links of its packages in `env` lead; parents first."""
    prefixes = {os.path.realpath(prefix) for prefix in (sys.base_prefix, sys.base_exec_prefix)}
    paths = [f"{prefix}/{part}" for prefix in prefixes for part in ("bin", "lib", "lib64")]
    paths += [os.path.dirname(os.path.realpath(entry.path)) for _, entry in walk(f"{env}/lib") if entry.is_symlink()]
    paths += [*SYSTEM, *map(str, Path("/dev").glob("nvidia*"))]
    return sorted({path for path in paths if os.path.lexists(path)}, key=len)


def walk(folder: str | Path) -> Iterator[tuple[str, os.DirEntry]]:
    """Yield (relative path, entry) for everything below a folder. Follows no links; skips unreadable folders."""
    start = len(os.fspath(folder)) + 1
    todo = [os.fspath(folder)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:  # removed, or its path is too long
            for entry in entries:
                yield entry.path[start:], entry
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)


def folder_bytes(*folders: str | Path, holes: bool = False) -> int:
    """Bytes on disk of what is in folders, with the holes of sparse files or without. Each entry counts as one block at
    least: many empty files fill a disk, too."""
    total = 0
    for folder in folders:
        for _, entry in walk(folder):
            with contextlib.suppress(OSError):
                info = entry.stat(follow_symlinks=False)
                total += max(4096, info.st_size if holes else info.st_blocks * 512)
    return total


def process_table() -> dict[int, tuple[int, int, int]]:
    """{pid: (parent's pid, resident bytes, threads)} of every visible process; zombies have 0 bytes."""
    if not os.path.isdir("/proc/self"):
        rows = subprocess.run(["ps", "-axo", "pid=,ppid=,rss="], capture_output=True, text=True).stdout.splitlines()
        return {pid: (parent, kib * 1024, 1) for pid, parent, kib in (map(int, row.split()) for row in rows)}
    table, page = {}, os.sysconf("SC_PAGE_SIZE")
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError):  # the process ended meanwhile
            fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
            table[int(name)] = (int(fields[1]), int(fields[21]) * page, int(fields[17]))
    return table


def memory_facts() -> tuple[int, int]:
    """(memory of this machine, shared memory in use: tmpfs, memfd and System V segments), both in bytes."""
    try:
        kib = dict(re.findall(r"(\w+): +(\d+)", Path("/proc/meminfo").read_text()))
        return int(kib["MemTotal"]) * 1024, int(kib["Shmem"]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), 0


def descendants(pid: int, table: dict[int, tuple[int, int, int]] | None = None) -> list[int]:
    """Process ids of the children of `pid`, their children, and so on."""
    children = collections.defaultdict(list)
    for child, (parent, *_) in (table or process_table()).items():
        children[parent].append(child)
    found = [pid]
    for parent in found:  # which grows meanwhile
        found += children[parent]
    return found[1:]


def kill_descendants() -> None:
    """Kill all descendants of this process, repeatedly until none is left; give up after 5 s."""
    end = time.monotonic() + 5
    while time.monotonic() < end and (alive := descendants(os.getpid())):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def libc_call(name: str, *arguments) -> None:
    """Call a C library function. Raises OSError if it returns -1."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [os.fsencode(a) if isinstance(a, str) else a for a in arguments]
    arguments = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if getattr(libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def set_read_only(path: str, read_only: bool) -> None:
    """Make a mount and all below it read-only, or this one mount writable."""
    attributes = (ctypes.c_uint64 * 4)()  # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    attributes[0 if read_only else 1] = MOUNT_ATTR_RDONLY
    libc_call("syscall", SYS_MOUNT_SETATTR, -1, path, AT_RECURSIVE * read_only, ctypes.byref(attributes), 32)


def bind(source: str, target: str) -> None:
    """Bind-mount `source` (a file or folder) at `target`, which is created; a symbolic link is copied."""
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


def enter_root(spec: dict) -> None:
    """Make spec["root"] the root folder: the writable folders in a tmpfs with `disk` bytes free, the rest read-only."""
    root, writable = spec["root"], ["/app/output", "/app/program", *spec["writable"], "/tmp"]
    libc_call("mount", None, "/", None, MS_REC | MS_PRIVATE, None)
    bind(root, root)
    held = sum(entry.stat().st_size + 4096 for path in writable for entry in Path(root + path).rglob("*"))
    room = f"{root}/proc"  # where the mount of /proc hides it
    os.mkdir(room)
    libc_call("mount", "room", room, "tmpfs", MS_SAFE & ~MS_NOEXEC, f"size={spec['disk'] + held},nr_inodes=100k")
    for path in writable:
        shutil.copytree(root + path, room + path, symlinks=True)
        libc_call("mount", room + path, root + path, None, MS_BIND, None)
    for path in visible_paths(f"{root}/env"):  # which may lie below /tmp
        bind(path, root + path)
    try:
        libc_call("mount", "proc", room, "proc", MS_SAFE, None)
    except OSError:  # a container that masks parts of /proc does not permit a new one
        libc_call("mount", "/proc", room, None, MS_BIND | MS_REC, None)
    os.makedirs(f"{root}/dev/shm")
    libc_call("mount", "shm", f"{root}/dev/shm", "tmpfs", MS_SAFE, f"size={SHARED_MEMORY}")
    set_read_only(root, True)
    for path in (*writable, "/dev/shm"):
        set_read_only(root + path, False)
    os.chroot(root)


def forbid_calls() -> None:
    """Install a seccomp filter: keyring calls, and sockets to the host machine (AF_VSOCK), fail with EPERM.

    Classic BPF over struct seccomp_data: call number at byte 0, architecture at 4, first argument at 16.
    """
    if platform.machine() not in CALLS:
        return
    audit, socket_call, keyring = CALLS[platform.machine()]
    load, equal, above, answer = 0x20, 0x15, 0x35, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | 1  # EPERM
    program = [(load, 0, 0, 4), (equal, 0, 8, audit), (load, 0, 0, 0), (above, 6, 0, 1 << 30)]  # x32 has bit 30 set
    program += [(equal, 5 - i, 0, call) for i, call in enumerate(keyring)]
    program += [(equal, 0, 3, socket_call), (load, 0, 0, 16), (equal, 0, 1, AF_VSOCK)]
    program += [(answer, 0, 0, refuse), (answer, 0, 0, allow)]
    code = b"".join(struct.pack("=HBBI", *row) for row in program)
    block = ctypes.create_string_buffer(code, len(code))
    filters = (ctypes.c_uint64 * 2)(len(program), ctypes.addressof(block))  # struct sock_fprog
    libc_call("prctl", PR_SET_SECCOMP, 2, ctypes.byref(filters), 0, 0)


def start(spec: dict) -> None:
    """In the forked child: enter the sandbox and exec the command. Never returns."""
    import resource

    try:
        if sys.platform == "linux":
            libc_call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if spec["isolated"]:
            os.setsid()  # else signals to its process group would reach the supervisor
            enter_root(spec)
            with contextlib.suppress(OSError):  # at the first number that is no capability
                for capability in range(64):
                    libc_call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)  # exec drops them, for user 0, too
            libc_call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            forbid_calls()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (spec["disk"], spec["disk"]))
        os.chdir("/app/program" if spec["isolated"] else f"{spec['root']}/app/program")
        os.closerange(3, 256)
        os.execvpe(spec["command"][0], spec["command"], spec["env"])
    except BaseException as error:  # a successful exec does not return
        print(f"cannot start {spec['command'][0]}: {error}", file=sys.stderr, flush=True)
    os._exit(127)


def copy_out(root: str, disk: int) -> bool:
    """Copy /app/output from the tmpfs to disk. Returns True, and copies nothing, if it is too large or the tmpfs full.

    disk: maximum bytes, with the holes of sparse files, which a copy fills. The working directory is the root folder as
    it was before the mounts, which hide it.
    """
    output = f"{root}/app/output"
    room = os.statvfs(output)
    if folder_bytes(output, holes=True) > disk or not (room.f_bavail and room.f_ffree):
        return True
    shutil.rmtree("app/output", ignore_errors=True)  # its old contents; the folder itself is in use by the mount
    copy_files(output, "app/output")
    return False


def copy_files(source: str | Path, target: str | Path) -> None:
    """Copy folders and regular files into `target`, over files there.

    Skips links, pipes and devices, which a submission may plant, and paths that are too long in `target`.
    Raises OSError if a file and a folder have the same name.
    """
    os.makedirs(target, exist_ok=True)
    for path, entry in walk(source):
        try:
            if entry.is_dir(follow_symlinks=False):
                os.makedirs(f"{target}/{path}", exist_ok=True)
            elif entry.is_file(follow_symlinks=False):
                shutil.copyfile(entry.path, f"{target}/{path}", follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise


def unlock(folder: str | Path) -> None:
    """Give this user read and write access to everything in a folder of untrusted code. Follows no links."""
    subprocess.run(["chmod", "-R", "u+rwX", folder], stderr=subprocess.DEVNULL)


def supervise(spec: dict, facts_to: int) -> int:
    """Run the command. When it ends, or at SIGTERM, kill its processes and copy its output out. Returns the status."""
    if sys.platform == "linux":
        libc_call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become our children, so all are killed
    if spec["isolated"]:
        os.chdir(spec["root"])
        user, group = os.getuid(), os.getgid()
        libc_call("unshare", CLONE_NEW)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    main = os.fork()
    if main == 0:
        start(spec)
    stopped = []

    def stop(*_) -> None:
        stopped.append(True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(main, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    if sys.platform == "linux":
        libc_call("prctl", PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)  # our parent may be killed, too
    pid = None
    while pid != main:
        pid, status, usage = os.wait4(-1, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kill_descendants()
    full = spec["isolated"] and copy_out(spec["root"], spec["disk"])
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    os.write(facts_to, json.dumps({"peak": peak, "disk": full}).encode())
    code = -signal.SIGTERM if stopped else os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


@functools.lru_cache(maxsize=4)
def permitted(python: str = sys.executable) -> tuple[bool, str]:
    """Try the sandbox with this Python: (True, what it does not isolate, or "") if it works, else (False, reason)."""
    from grader.environment import lay_out

    if sys.platform != "linux":
        return False, f"{sys.platform} has no namespaces"
    with tempfile.TemporaryDirectory(prefix="sandbox-") as root:
        lay_out(Path(root, "env"), python)
        for folder in ("tmp", "app/program", "app/output"):
            os.makedirs(f"{root}/{folder}")
        count = "import ctypes, os, zlib, numpy; print(sum(map(str.isdigit, os.listdir('/proc'))))"
        spec = {"root": root, "command": ["/env/bin/python", "-c", count], "env": {}, "writable": [],
                "isolated": True, "disk": 1 << 20}  # fmt: skip
        try:
            command = [python, "-I", __file__, json.dumps(spec), "1"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return False, "a trial run did not end"
    if done.returncode:
        return False, (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    alone = int(done.stdout.split("{")[0]) <= 2
    return True, "" if alone else "it sees the names of this machine's processes"


if __name__ == "__main__":
    sys.exit(supervise(json.loads(sys.argv[1]), int(sys.argv[2])))
