"""The list of calls that jobs may make: real names, each once, none that is the host's. What the kernel makes
of it is tried in tests/integration/test_isolation.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ziglang

from qubixd.runner.seccomp import ABSENT, ALLOWED, NAMESPACES, profile

HEADERS = Path(ziglang.__file__).parent / "lib" / "libc" / "include"
CONDITIONAL = {"clone", "personality", "socket"}
HOSTS_ONLY = {
    *(
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "open_tree",
        "move_mount",
        "fsopen",
        "fsmount",
        "mount_setattr",
    ),
    *(
        "unshare",
        "setns",
        "clone3",
        "bpf",
        "perf_event_open",
        "keyctl",
        "add_key",
        "request_key",
        "userfaultfd",
    ),
    *(
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "init_module",
        "finit_module",
        "delete_module",
    ),
    *("kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "syslog", "iopl", "ioperm"),
    *("open_by_handle_at", "settimeofday", "clock_settime", "sethostname", "quotactl", "fanotify_init"),
}


def kernel_names() -> set[str]:
    """Calls of Linux on x86-64 and arm64, by the headers that the compiler brings."""
    x86 = (HEADERS / "x86-linux-any" / "asm" / "unistd_64.h").read_text()
    generic = (HEADERS / "any-linux-any" / "asm-generic" / "unistd.h").read_text()
    return set(re.findall(r"#define __NR(?:3264)?_(\w+)", x86 + generic))


def test_names_are_calls_of_linux_in_order_and_once() -> None:
    names = ALLOWED.split()
    assert names == sorted(set(names))
    assert set(names) <= kernel_names() and len(names) > 250


def test_nothing_that_is_the_host_s_is_allowed_without_a_condition() -> None:
    allowed = set(ALLOWED.split())
    assert kernel_names() >= HOSTS_ONLY
    assert not allowed & (HOSTS_ONLY | CONDITIONAL | set(ABSENT))


def test_profile_refuses_what_it_does_not_name() -> None:
    told = json.loads(profile())
    assert told["defaultAction"] == "SCMP_ACT_ERRNO"
    assert not any(each["subArchitectures"] for each in told["archMap"])
    conditions = [each for each in told["syscalls"] if each.get("args")]
    assert {name for each in conditions for name in each["names"]} == CONDITIONAL
    (clone,) = (each["args"][0] for each in conditions if each["names"] == ["clone"])
    # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
    bits = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
    assert clone["value"] == NAMESPACES == sum(bits) and clone["op"] == "SCMP_CMP_MASKED_EQ"
