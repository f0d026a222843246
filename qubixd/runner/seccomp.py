"""Which calls a job may make to the kernel: our own list, since an engine's preset depends on its age. Pure.

Beside what containers are usually refused (namespaces, mounts, modules, keys, tracing of the kernel) a job
gets no io_uring, whose calls no filter sees, and no sockets but those of the Internet, of one machine and of
routing tables: a virtual machine's line to its host (AF_VSOCK) belongs to no network namespace, so a job
"without network" would have it. Calls that are younger than this list are refused, too.

The form is that of Docker's profiles; see docs/isolation.md.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Final

ALLOWED: Final = """
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
clock_adjtime clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat
dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2
execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2
fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync
ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area
getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt
gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get
ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link
linkat listen listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack
membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap
modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal
msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause
pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv
preadv2 prlimit64 process_madvise process_mrelease process_vm_readv process_vm_writev pselect6 ptrace
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg
remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg
sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer
setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr
setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs
statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time timer_create
timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime
times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write
writev
"""
"""In the order of the alphabet. What an architecture does not have is passed over by the engine."""
ABSENT: Final = ("clone3", "listmount", "statmount")
"""Answered as by a kernel that is too old for them, so that programs go the old way. What `clone3` is asked
for lies in memory, where no filter looks."""
NO_SUCH_CALL: Final = 38
NAMESPACES: Final = 0x7E02_0000
"""The bits of `clone` that make a namespace."""
PERSONALITIES: Final = (0x0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF)
"""Linux, 32 bit addresses, old `uname`, both, and the question which it is."""
UNIX, INTERNET, INTERNET_6, NETLINK = 1, 2, 10, 16
ROUTES: Final = 0
"""The kernel's routing tables, which name resolution and lists of addresses ask."""


@functools.cache
def profile() -> str:
    """The profile as JSON, for the engine's option `seccomp=`."""
    return json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [
                {"architecture": f"SCMP_ARCH_{name}", "subArchitectures": []}
                for name in ("X86_64", "AARCH64")
            ],
            "syscalls": [
                _allow(ALLOWED.split()),
                {"names": list(ABSENT), "action": "SCMP_ACT_ERRNO", "errnoRet": NO_SUCH_CALL},
                _allow(
                    ["clone"], {"index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
                ),
                *(_allow(["personality"], _is(0, value)) for value in PERSONALITIES),
                *(_allow(["socket"], _is(0, family)) for family in (UNIX, INTERNET, INTERNET_6)),
                _allow(["socket"], _is(0, NETLINK), _is(2, ROUTES)),
            ],
        }
    )


def _allow(names: list[str], *conditions: dict[str, Any]) -> dict[str, Any]:
    """These calls, if their arguments fulfil all conditions."""
    return {"names": names, "action": "SCMP_ACT_ALLOW", "args": list(conditions)}


def _is(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}
