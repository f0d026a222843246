/* The fence of a job with Internet: holds a network namespace and its packet filter.
 *
 *   fence hold RULES       install, answer, keep the namespace until SIGTERM
 *   fence apply RULES      install, answer, end: replaces the rules of a fence that stands
 *   fence networks         this machine's IPv4 addresses and routes as ADDRESS/MASK, one a line
 *
 * RULES is a batch of nf_tables messages in hexadecimal, each asking for an acknowledgement; fence_rules.py
 * makes it. The answer is one line: "up" once the kernel took every message and a forbidden packet has been
 * refused, else "no nf_tables: ..." or "failed: ..." and an exit code above zero.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#define MAX_BATCH 65536
#define DEVICE_METADATA "169.254.169.254"
#define DISCARD_PORT 9

static int fail(const char *what, int error) {
    printf("%s: %s\n", what, strerror(error));
    return 1;
}

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The bytes of `hex` in `out`; their number, -1 if it is no even number of hexadecimal digits or too long. */
static int unhex(const char *hex, unsigned char *out) {
    int size = 0;
    for (; hex[0]; hex += 2) {
        if (size == MAX_BATCH || digit(hex[0]) < 0 || digit(hex[1]) < 0)
            return -1;
        out[size++] = (unsigned char)(digit(hex[0]) << 4 | digit(hex[1]));
    }
    return size;
}

/* How many messages of the batch want an acknowledgement. */
static int expected(const unsigned char *batch, int size) {
    int count = 0, at = 0;
    while (at + (int)sizeof(struct nlmsghdr) <= size) {
        struct nlmsghdr header;
        memcpy(&header, batch + at, sizeof header);
        if (header.nlmsg_len < sizeof header)
            break;
        count += (header.nlmsg_flags & NLM_F_ACK) != 0;
        at += (int)NLMSG_ALIGN(header.nlmsg_len);
    }
    return count;
}

/* Take acknowledgements in until `count` came; 0, or the error of the first message that was refused. */
static int acknowledged(int netlink, int count) {
    _Alignas(struct nlmsghdr) char answer[16384];
    while (count > 0) {
        ssize_t got = recv(netlink, answer, sizeof answer, 0);
        if (got < 0)
            return errno;
        unsigned left = (unsigned)got;
        for (struct nlmsghdr *each = (struct nlmsghdr *)answer; NLMSG_OK(each, left);
             each = NLMSG_NEXT(each, left)) {
            if (each->nlmsg_type != NLMSG_ERROR)
                continue;
            struct nlmsgerr *error = NLMSG_DATA(each);
            if (error->error)
                return -error->error;
            count--;
        }
    }
    return 0;
}

static int install(const char *hex) {
    static unsigned char batch[MAX_BATCH];
    int size = unhex(hex, batch), room = 1 << 20;
    if (size <= 0 || expected(batch, size) == 0)
        return fail("failed: the rules cannot be read", EINVAL);
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (netlink < 0)
        return fail("no nf_tables: no netfilter socket", errno);
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct timeval patience = {.tv_sec = 10};
    setsockopt(netlink, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(netlink, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (sendto(netlink, batch, (size_t)size, 0, (struct sockaddr *)&kernel, sizeof kernel) != size)
        return fail("no nf_tables: the rules could not be sent", errno);
    int error = acknowledged(netlink, expected(batch, size));
    close(netlink);
    return error ? fail("no nf_tables: the kernel refused the rules", error) : 0;
}

/* A packet to a forbidden address must be refused on its way out, whatever the kernel said of the rules. */
static int holds(void) {
    struct sockaddr_in forbidden = {.sin_family = AF_INET, .sin_port = htons(DISCARD_PORT)};
    inet_pton(AF_INET, DEVICE_METADATA, &forbidden.sin_addr);
    int probe = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return fail("failed: no socket for a probe", errno);
    ssize_t sent = sendto(probe, "", 1, 0, (struct sockaddr *)&forbidden, sizeof forbidden);
    int error = sent < 0 ? errno : 0;
    close(probe);
    return error == EPERM ? 0 : fail("failed: a forbidden packet was not refused", error);
}

/* Nothing is left to do that needs a right. */
static int give_up_rights(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {0};
    return syscall(SYS_capset, &header, none) ? fail("failed: rights stayed", errno) : 0;
}

/* Two addresses of the kernel's, in network byte order. */
static void print_network(struct in_addr address, struct in_addr mask) {
    char text[INET_ADDRSTRLEN];
    printf("%s/", inet_ntop(AF_INET, &address, text, sizeof text));
    printf("%s\n", inet_ntop(AF_INET, &mask, text, sizeof text));
}

/* Where the main routing table leads: a VPN's networks need not be private ones. */
static int routes(void) {
    FILE *table = fopen("/proc/net/route", "r");
    struct in_addr network, mask;
    if (!table)
        return fail("failed: no routes", errno);
    fscanf(table, "%*[^\n]"); /* titles of the columns */
    while (fscanf(table, "%*s %x %*s %*s %*s %*s %*s %x%*[^\n]", &network.s_addr, &mask.s_addr) == 2)
        print_network(network, mask);
    fclose(table);
    return 0;
}

static int networks(void) {
    struct ifaddrs *all, *each;
    if (getifaddrs(&all))
        return fail("failed", errno);
    for (each = all; each; each = each->ifa_next)
        if (each->ifa_addr && each->ifa_addr->sa_family == AF_INET && each->ifa_netmask)
            print_network(((struct sockaddr_in *)each->ifa_addr)->sin_addr,
                          ((struct sockaddr_in *)each->ifa_netmask)->sin_addr);
    freeifaddrs(all);
    return routes();
}

int main(int argc, char **argv) {
    sigset_t ends;
    int signal;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* process 1 gets no signal that it does not wait for */
    if (argc == 2 && !strcmp(argv[1], "networks"))
        return networks();
    if (argc != 3 || (strcmp(argv[1], "hold") && strcmp(argv[1], "apply")))
        return fail("failed: hold RULES, apply RULES or networks", EINVAL);
    if (install(argv[2]) || holds() || give_up_rights())
        return 1;
    printf("up\n");
    fflush(stdout);
    return strcmp(argv[1], "hold") ? 0 : sigwait(&ends, &signal);
}
