/* Runs inside a job: tries what only the host may do. A line for each thing that the kernel did NOT refuse.
 *
 * Arguments are ignored; nothing it tries would harm a host that lets it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AF_VSOCK_ 40
#define NO_ADDRESS ((void *)-1L)

/* `result` of a call that should have been refused: with EPERM, EACCES, ENOSYS or the like. */
static void refused(const char *what, long result) {
    if (result >= 0 || errno == EFAULT || errno == EINVAL || errno == EBADF)
        printf("%s: %s\n", what, result >= 0 ? "done" : strerror(errno));
}

/* Do it in a child, so that one try does not change the next. */
static void apart(const char *what, long (*try)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        errno = 0;
        refused(what, try());
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static long user_space(void) { return unshare(CLONE_NEWUSER); }
static long mount_space(void) { return unshare(CLONE_NEWNS); }
static long net_space(void) { return unshare(CLONE_NEWNET); }
static long pid_space(void) { return unshare(CLONE_NEWPID); }
static long cgroup_space(void) { return unshare(CLONE_NEWCGROUP); }
static long cloned_space(void) { return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); }
static long new_clone(void) { return syscall(SYS_clone3, NO_ADDRESS, 88); }
static long join_space(void) { return setns(open("/proc/1/ns/mnt", O_RDONLY), 0); }
static long mounting(void) { return mount("none", "/tmp", "tmpfs", 0, ""); }
static long remounting(void) { return mount("none", "/", "", MS_REMOUNT | MS_BIND, ""); }
static long unmounting(void) { return umount2("/proc/kcore", MNT_DETACH); }
static long opening_fs(void) { return syscall(SYS_fsopen, "proc", 0); }
static long moving_tree(void) { return syscall(SYS_open_tree, AT_FDCWD, "/", 1); }
static long new_root(void) { return syscall(SYS_pivot_root, "/tmp", "/tmp"); }
static long changed_root(void) { return chroot("/tmp"); }
static long memory_device(void) { return mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1)); }
static long disk_device(void) { return mknod("/workspace/disk", S_IFBLK | 0600, makedev(254, 0)); }
static long first_traced(void) { return ptrace(PTRACE_ATTACH, getppid() == 1 ? 1 : 0, 0, 0); }
static long keys(void) { return syscall(SYS_add_key, "user", "qubix", "x", 1, -2); }
static long key_control(void) { return syscall(SYS_keyctl, 0, -3, 0, 0, 0); }
static long bpf_program(void) {
    union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    return syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map);
}
static long ring(void) {
    struct io_uring_params params = {0};
    return syscall(SYS_io_uring_setup, 1, &params);
}
static long watch_kernel(void) {
    struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event, .exclude_kernel = 1};
    return syscall(SYS_perf_event_open, &event, 0, -1, -1, 0);
}
static long faults(void) { return syscall(SYS_userfaultfd, 0); }
static long kernel_module(void) { return syscall(SYS_finit_module, -1, "", 0); }
static long kernel_log(void) { return syscall(SYS_syslog, 3, NO_ADDRESS, 1); }
static long kexec(void) { return syscall(SYS_kexec_load, 0, 0, 0, 0); }
static long restart(void) { return syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0); }
static long swapping(void) { return syscall(SYS_swapoff, "/none"); }
static long host_name(void) { return sethostname("x", 1); }
static long clock_set(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return clock_settime(CLOCK_REALTIME, &now);
}
static long accounting(void) { return syscall(SYS_acct, "/workspace/acct"); }
static long by_handle(void) { return syscall(SYS_open_by_handle_at, AT_FDCWD, NO_ADDRESS, 0); }
static long root_again(void) { return setuid(0); }
static long to_host_machine(void) { return socket(AF_VSOCK_, SOCK_STREAM, 0); }
static long raw_packets(void) { return socket(AF_PACKET, SOCK_RAW, 0); }
static long raw_ip(void) { return socket(AF_INET, SOCK_RAW, IPPROTO_RAW); }
static long kernel_ciphers(void) { return socket(38, SOCK_SEQPACKET, 0); }
static long quotas(void) { return syscall(SYS_quotactl, 0, "/", 0, 0); }
static long other_files(void) { return syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, 1, 0), 0, 0); }

int main(void) {
    apart("user namespace", user_space);
    apart("mount namespace", mount_space);
    apart("network namespace", net_space);
    apart("process namespace", pid_space);
    apart("cgroup namespace", cgroup_space);
    apart("cloned namespace", cloned_space);
    apart("clone3", new_clone);
    apart("setns", join_space);
    apart("mount", mounting);
    apart("remount", remounting);
    apart("umount", unmounting);
    apart("fsopen", opening_fs);
    apart("open_tree", moving_tree);
    apart("pivot_root", new_root);
    apart("chroot", changed_root);
    apart("memory device", memory_device);
    apart("disk device", disk_device);
    apart("ptrace", first_traced);
    apart("add_key", keys);
    apart("keyctl", key_control);
    apart("bpf", bpf_program);
    apart("io_uring", ring);
    apart("perf", watch_kernel);
    apart("userfaultfd", faults);
    apart("module", kernel_module);
    apart("syslog", kernel_log);
    apart("kexec", kexec);
    apart("reboot", restart);
    apart("swapoff", swapping);
    apart("sethostname", host_name);
    apart("clock", clock_set);
    apart("acct", accounting);
    apart("file handle", by_handle);
    apart("setuid", root_again);
    apart("vsock", to_host_machine);
    apart("packet socket", raw_packets);
    apart("raw socket", raw_ip);
    apart("kernel ciphers", kernel_ciphers);
    apart("quotactl", quotas);
    apart("files of process 1", other_files);
    printf("tried\n");
    return 0;
}
