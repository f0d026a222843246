/* The porter of a job: a way from the daemon to what listens inside the job's network.
 *
 *   porter hold            at the unix socket /door/porter: whoever connects says which kind of socket it wants
 *                          (two characters, "4" or "6" and "t" or "u") and is handed a fresh one of the network
 *                          that the porter stands in; it connects that itself. Until it is killed.
 *   porter pipe t PORT     a TCP connection to PORT of the loopback, by standard input and output
 *   porter pipe u PORT     the same by UDP, each datagram behind its length (u16, big-endian)
 *
 * `hold` is for an engine on this machine: descriptors travel through the unix socket, and what passes through
 * a connection passes no program. `pipe` is for any other, run inside the job's own container. It begins with
 * one character: "+" once it is connected, or "-" and an end.
 */
#include <linux/fcntl.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/poll.h>
#include <linux/signal.h>
#include <linux/socket.h>
#include <linux/uio.h>
#include <linux/un.h>

#define DOOR "/door/porter"
#define BACKLOG 64
#define DATAGRAM_BYTES 65535

enum { UNIX = 1, INET = 2, INET6 = 10, STREAM = 1, DATAGRAM = 2, PACKETS = 5, CLOSE_ON_EXEC = 02000000 };
enum { SOCKET_LEVEL = 1, RECEIVE_TIMEOUT = 20, HAND_OVER = 1, NO_SIGNAL = 0x4000, NO_MORE_WRITES = 1 };

/* The kernel's own headers leave these to a C library. */
struct message {
    void *name;
    int name_size;
    struct iovec *parts;
    unsigned long part_count;
    void *control;
    unsigned long control_size;
    unsigned flags;
};
struct handed {
    unsigned long size;
    int level;
    int type;
    int descriptor;
    int padding;
};

static unsigned char data[2 + DATAGRAM_BYTES + 1];

static long open_socket(int family, int type) {
    return call(__NR_socket, family, type | CLOSE_ON_EXEC, 0, 0, 0, 0);
}

static void close_file(long file) {
    call(__NR_close, file, 0, 0, 0, 0, 0);
}

/* At the door --------------------------------------------------------------------------------------------- */

static void hand_over(long visitor, long descriptor) {
    char byte = '+';
    struct iovec part = {&byte, 1};
    struct handed handed = {20, SOCKET_LEVEL, HAND_OVER, (int)descriptor, 0};
    struct message message = {0, 0, &part, 1, &handed, sizeof handed, 0};
    call(__NR_sendmsg, visitor, (long)&message, NO_SIGNAL, 0, 0, 0);
}

static void serve(long visitor) {
    char wish[2];
    long patience[2] = {1, 0};
    call(__NR_setsockopt, visitor, SOCKET_LEVEL, RECEIVE_TIMEOUT, (long)patience, sizeof patience, 0);
    if (call(__NR_recvfrom, visitor, (long)wish, sizeof wish, 0, 0, 0) != sizeof wish)
        return;
    long fresh = open_socket(wish[0] == '6' ? INET6 : INET, wish[1] == 'u' ? DATAGRAM : STREAM);
    if (fresh < 0)
        return;
    hand_over(visitor, fresh);
    close_file(fresh);
}

static int hold(void) {
    static const struct sockaddr_un door = {.sun_family = UNIX, .sun_path = DOOR};
    long listening = open_socket(UNIX, PACKETS);
    call(__NR_unlinkat, AT_FDCWD, (long)DOOR, 0, 0, 0, 0);
    long error = call(__NR_bind, listening, (long)&door, sizeof door, 0, 0, 0);
    if (error || (error = call(__NR_listen, listening, BACKLOG, 0, 0, 0, 0)))
        return fail("failed: no door", error);
    for (;;) {
        long visitor = call(__NR_accept4, listening, 0, 0, CLOSE_ON_EXEC, 0, 0);
        if (visitor < 0)
            continue;
        serve(visitor);
        close_file(visitor);
    }
}

/* By standard input and output ---------------------------------------------------------------------------- */

/* A connected socket, or an error below zero. */
static long connected(int type, unsigned short port) {
    struct sockaddr_in four = {.sin_family = INET, .sin_port = __builtin_bswap16(port)};
    static struct sockaddr_in6 six = {.sin6_family = INET6};
    four.sin_addr.s_addr = __builtin_bswap32(0x7f000001);
    six.sin6_port = __builtin_bswap16(port);
    six.sin6_addr.s6_addr[15] = 1;
    long one = open_socket(INET, type);
    if (call(__NR_connect, one, (long)&four, sizeof four, 0, 0, 0) == 0)
        return one;
    long other = open_socket(INET6, type);
    return call(__NR_connect, other, (long)&six, sizeof six, 0, 0, 0) == 0 ? other : -ECONNREFUSED;
}

/* All of it, or 0. */
static int written(long file, const unsigned char *bytes, long size) {
    while (size > 0) {
        long done = call(__NR_write, file, (long)bytes, size, 0, 0, 0);
        if (done <= 0 && done != -EINTR)
            return 0;
        if (done > 0)
            bytes += done, size -= done;
    }
    return 1;
}

/* Exactly so many bytes from standard input, or 0. */
static int taken(unsigned char *bytes, long size) {
    while (size > 0) {
        long got = call(__NR_read, 0, (long)bytes, size, 0, 0, 0);
        if (got <= 0 && got != -EINTR)
            return 0;
        if (got > 0)
            bytes += got, size -= got;
    }
    return 1;
}

static void copy(long from, long to) {
    long got;
    while ((got = call(__NR_read, from, (long)data, sizeof data, 0, 0, 0)) > 0 || got == -EINTR)
        if (got > 0 && !written(to, data, got))
            return;
}

static void send_datagrams(long socket) {
    long size;
    while (taken(data, 2) && taken(data + 2, size = data[0] << 8 | data[1]))
        call(__NR_sendto, socket, (long)(data + 2), size, NO_SIGNAL, 0, 0);
}

static void receive_datagrams(long socket) {
    for (;;) {
        long got = call(__NR_recvfrom, socket, (long)(data + 2), DATAGRAM_BYTES, 0, 0, 0);
        if (got < 0) /* nobody was there for what was sent: the next may find somebody */
            continue;
        data[0] = (unsigned char)(got >> 8);
        data[1] = (unsigned char)got;
        if (!written(1, data, got + 2))
            return;
    }
}

/* Each direction by a process of its own, so that neither waits for the other. */
static int pipe_to(int type, unsigned short port) {
    long socket = connected(type, port);
    if (socket < 0) {
        say("-");
        return 1;
    }
    say("+");
    long other = call(__NR_clone, SIGCHLD, 0, 0, 0, 0, 0);
    if (other < 0)
        return 1;
    if (other == 0) {
        close_file(0);
        type == STREAM ? copy(socket, 1) : receive_datagrams(socket);
        return 0;
    }
    close_file(1);
    type == STREAM ? copy(0, socket) : send_datagrams(socket);
    if (type == STREAM)
        call(__NR_shutdown, socket, NO_MORE_WRITES, 0, 0, 0, 0);
    else
        call(__NR_kill, other, SIGKILL, 0, 0, 0, 0);
    call(__NR_wait4, other, 0, 0, 0, 0, 0);
    return 0;
}

static int run(long count, char **words) {
    unsigned port = 0;
    if (count == 2 && same(words[1], "hold"))
        return hold();
    if (count != 4 || !same(words[1], "pipe"))
        return fail("failed: hold, or pipe t PORT or pipe u PORT", EINVAL);
    for (const char *digit = words[3]; *digit >= '0' && *digit <= '9' && port < 65536; digit++)
        port = port * 10 + (unsigned)(*digit - '0');
    return pipe_to(same(words[2], "u") ? DATAGRAM : STREAM, (unsigned short)port);
}
