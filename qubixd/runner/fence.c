/* The fence of a job with Internet: holds a network namespace and its packet filter.
 *
 *   fence                  answer: programs run here
 *   fence hold RULES       install, answer, keep the namespace until SIGTERM
 *   fence apply RULES      install, answer, end: replaces the rules of a fence that stands
 *   fence networks         print the kernel's own tables of this machine's IPv4 routes and addresses
 *
 * RULES is a batch of nf_tables messages in hexadecimal, each asking for an acknowledgement; fence_rules.py
 * makes it. The answer is one line: "up" once the kernel took every message and a forbidden packet has been
 * refused, else "no nf_tables: ..." or "failed: ..." with an error number, and an exit code above zero.
 */
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/in.h>
#include <linux/netlink.h>
#include <linux/signal.h>
#include <linux/socket.h>

#define MAX_BATCH 65536
#define METADATA 0xa9fea9feu /* 169.254.169.254 */
#define DISCARD_PORT 9

enum { INET = 2, NETLINK = 16, DATAGRAM = 2, RAW = 3, CLOSE_ON_EXEC = 02000000 };
enum { SOCKET_LEVEL = 1, RECEIVE_BUFFER = 8, RECEIVE_TIMEOUT = 20 };

static unsigned char batch[MAX_BATCH];
static char answer[16384] __attribute__((aligned(8)));

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The bytes of `hex` in `batch`; their number, -1 if it is no even number of hexadecimal digits or too long. */
static int unhex(const char *hex) {
    int size = 0;
    for (; hex[0]; hex += 2) {
        if (size == MAX_BATCH || digit(hex[0]) < 0 || digit(hex[1]) < 0)
            return -1;
        batch[size++] = (unsigned char)(digit(hex[0]) << 4 | digit(hex[1]));
    }
    return size;
}

/* How many messages of the batch want an acknowledgement. */
static int expected(int size) {
    int count = 0, at = 0;
    while (at + (int)sizeof(struct nlmsghdr) <= size) {
        const struct nlmsghdr *header = (const struct nlmsghdr *)(batch + at);
        if (header->nlmsg_len < sizeof *header)
            break;
        count += (header->nlmsg_flags & NLM_F_ACK) != 0;
        at += (int)NLMSG_ALIGN(header->nlmsg_len);
    }
    return count;
}

/* Take acknowledgements in until `count` came; 0, or the error of the first message that was refused. */
static long acknowledged(long netlink, int count) {
    while (count > 0) {
        long got = call(__NR_recvfrom, netlink, (long)answer, sizeof answer, 0, 0, 0);
        if (got < 0)
            return got;
        unsigned left = (unsigned)got;
        for (struct nlmsghdr *each = (struct nlmsghdr *)answer; NLMSG_OK(each, left);
             each = NLMSG_NEXT(each, left)) {
            if (each->nlmsg_type != NLMSG_ERROR)
                continue;
            const struct nlmsgerr *error = NLMSG_DATA(each);
            if (error->error)
                return error->error;
            count--;
        }
    }
    return 0;
}

static int install(const char *hex) {
    int size = unhex(hex), room = 1 << 20;
    if (size <= 0 || expected(size) == 0)
        return fail("failed: the rules cannot be read", EINVAL);
    long netlink = call(__NR_socket, NETLINK, RAW | CLOSE_ON_EXEC, NETLINK_NETFILTER, 0, 0, 0);
    if (netlink < 0)
        return fail("no nf_tables: no netfilter socket", netlink);
    struct sockaddr_nl kernel = {.nl_family = NETLINK};
    long patience[2] = {10, 0};
    call(__NR_setsockopt, netlink, SOCKET_LEVEL, RECEIVE_BUFFER, (long)&room, sizeof room, 0);
    call(__NR_setsockopt, netlink, SOCKET_LEVEL, RECEIVE_TIMEOUT, (long)patience, sizeof patience, 0);
    long sent = call(__NR_sendto, netlink, (long)batch, size, 0, (long)&kernel, sizeof kernel);
    if (sent != size)
        return fail("no nf_tables: the rules could not be sent", sent);
    long error = acknowledged(netlink, expected(size));
    call(__NR_close, netlink, 0, 0, 0, 0, 0);
    return error ? fail("no nf_tables: the kernel refused the rules", error) : 0;
}

/* A packet to a forbidden address must be refused on its way out, whatever the kernel said of the rules. */
static int holds(void) {
    struct sockaddr_in forbidden = {.sin_family = INET};
    forbidden.sin_port = __builtin_bswap16(DISCARD_PORT);
    forbidden.sin_addr.s_addr = __builtin_bswap32(METADATA);
    long probe = call(__NR_socket, INET, DATAGRAM | CLOSE_ON_EXEC, 0, 0, 0, 0);
    if (probe < 0)
        return fail("failed: no socket for a probe", probe);
    long sent = call(__NR_sendto, probe, (long)"", 1, 0, (long)&forbidden, sizeof forbidden);
    call(__NR_close, probe, 0, 0, 0, 0, 0);
    return sent == -EPERM ? 0 : fail("failed: a forbidden packet was not refused", sent);
}

/* Nothing is left to do that needs a right. */
static int give_up_rights(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    long error = call(__NR_capset, (long)&header, (long)none, 0, 0, 0, 0);
    return error ? fail("failed: rights stayed", error) : 0;
}

static int show(const char *path) {
    long file = call(__NR_openat, AT_FDCWD, (long)path, O_RDONLY, 0, 0, 0), got;
    if (file < 0)
        return fail("failed: no table of networks", file);
    while ((got = call(__NR_read, file, (long)answer, sizeof answer, 0, 0, 0)) > 0)
        call(__NR_write, 1, (long)answer, got, 0, 0, 0);
    return got ? fail("failed: a table of networks broke off", got) : 0;
}

static int run(long count, char **words) {
    unsigned long ends = 1ul << (SIGTERM - 1);
    /* Process 1 gets no signal that it does not wait for. */
    call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&ends, 0, sizeof ends, 0, 0);
    if (count == 1) {
        say("up\n");
        return 0;
    }
    if (count == 2 && same(words[1], "networks"))
        return show("/proc/net/route") || show("/proc/net/fib_trie");
    if (count != 3 || !(same(words[1], "hold") || same(words[1], "apply")))
        return fail("failed: hold RULES, apply RULES or networks", EINVAL);
    if (install(words[2]) || holds() || give_up_rights())
        return 1;
    say("up\n");
    while (same(words[1], "hold") && call(__NR_rt_sigtimedwait, (long)&ends, 0, 0, sizeof ends, 0, 0) < 0)
        ; /* interrupted, as by a pause of the container */
    return 0;
}
