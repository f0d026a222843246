/* The program that a caller sends into a container to see what is really there; docs/proof.md.

   It reads requests from standard input and writes answers to standard output: 8 bytes (length of the
   body, kind; little-endian like every number outside a digest), then the body. It keeps nothing, opens
   no file and no connection, and ends with its input. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "prover.h"

enum { PLAN = 1, PING = 2, BEGIN = 3, PASSES = 4, OPEN = 5 };
enum { READY = 129, PONG = 130, ROOTS = 131, SUMS = 132, INNER = 133, LIST = 134, ROW = 135, FAULT = 255 };
enum { MAX_REQUEST = 1 << 17, VERSION = 1 };

static const struct kind *kind = &cpu_kind;
static struct device *devices[MAX_DEVICES];
static u32 device_count;
static struct shape shape;

/* Of each device, filled by its own thread. */
static struct task {
    u32 key[8];       /* of A and B */
    u32 draw[8];      /* of the next r */
    u32 stripes, threads;
    u32 *roots;       /* of the stripes */
    u32 *lists;       /* passes * stripes roots of y */
    u32 *sums;        /* digest of z, then of each pass's list */
    u32 *z;
    const char *fault;
} tasks[MAX_DEVICES];

/* --- bytes ---------------------------------------------------------------------------------- */

static u8 waiting[1 << 16];
static size_t waits;

static void flush(void)
{
    for (size_t at = 0; at < waits;) {
        ssize_t put = write(1, waiting + at, waits - at);
        if (put <= 0) _exit(1);
        at += (size_t)put;
    }
    waits = 0;
}

static void take(u8 *to, size_t size)
{
    flush();
    while (size) {
        ssize_t got = read(0, to, size);
        if (got <= 0) _exit(0);
        to += got;
        size -= (size_t)got;
    }
}

static void give(const void *from, size_t size)
{
    const u8 *at = from;
    while (size) {
        size_t room = sizeof waiting - waits, part = size < room ? size : room;
        memcpy(waiting + waits, at, part);
        waits += part;
        at += part;
        size -= part;
        if (waits == sizeof waiting) flush();
    }
}

static u32 number(const u8 *at) { return at[0] | (u32)at[1] << 8 | (u32)at[2] << 16 | (u32)at[3] << 24; }

static void header(u32 length, u32 what)
{
    u32 both[2] = {length, what}; /* this program is built for little-endian machines only */
    give(both, sizeof both);
}

static void give_digests(const u32 *words, u32 count)
{
    u8 out[4096];
    for (u32 at = 0; at < count * 8;) {
        u32 size = 0;
        for (; at < count * 8 && size < sizeof out; at++, size += 4) {
            u32 v = sha_swap(words[at]);
            memcpy(out + size, &v, 4);
        }
        give(out, size);
    }
}

static void fail(const char *why)
{
    header((u32)strlen(why), FAULT);
    give(why, strlen(why));
    flush();
    _exit(0);
}

static void words_of(u32 *words, const u8 *digest)
{
    for (int i = 0; i < 8; i++) words[i] = sha_swap(number(digest + 4 * i));
}

/* --- requests ------------------------------------------------------------------------------- */

static void *must(size_t size)
{
    void *memory = malloc(size);
    if (!memory) fail("the memory for the proof cannot be had");
    return memory;
}

static void plan(const u8 *body, u32 length)
{
    if (length != 32 || number(body) != VERSION || device_count) fail("the plan cannot be read");
    u32 on_cuda = number(body + 4), count = number(body + 8);
    shape = (struct shape){number(body + 12), number(body + 16), number(body + 20), number(body + 24), number(body + 28)};
    if (!shape.n || shape.n % 256 || shape.n > MAX_N || shape.stripe_rows < 128 || shape.stripe_rows > MAX_STRIPE ||
        shape.stripe_rows & (shape.stripe_rows - 1) || !shape.stripes || shape.stripes > MAX_STRIPES ||
        !shape.passes || shape.passes > MAX_PASSES || !shape.threads || shape.threads > MAX_THREADS ||
        !count || count > MAX_DEVICES)
        fail("the plan is out of bounds");
    if (on_cuda) {
#ifdef QUBIX_CUDA
        kind = &cuda_kind;
#else
        fail("this build has no part for GPUs");
#endif
    }
    int there = kind->count();
    u32 used = there < (int)count ? (u32)(there < 0 ? 0 : there) : count;
    struct identity who[MAX_DEVICES];
    for (u32 i = 0; i < used; i++) {
        const char *fault = NULL;
        struct task *t = &tasks[i];
        devices[i] = kind->open((int)i, &shape, &who[i], &fault);
        if (!devices[i]) fail(fault);
        t->roots = must((size_t)shape.stripes * 32);
        t->lists = must((size_t)shape.stripes * shape.passes * 32);
        t->sums = must((size_t)(shape.passes + 1) * 32);
        t->z = must((size_t)shape.n * 4);
    }
    device_count = used;
    header(used * 88, READY);
    for (u32 i = 0; i < used; i++) {
        give(who[i].uuid, 16);
        give(&who[i].memory, 8);
        give(who[i].name, 64);
    }
}

static void on_all(void *(*part)(void *))
{
    pthread_t threads[MAX_DEVICES];
    u32 begun = 0;
    while (begun + 1 < device_count) {
        if (pthread_create(&threads[begun], NULL, part, &tasks[begun + 1])) fail("no thread can be started");
        begun++;
    }
    part(&tasks[0]);
    while (begun) pthread_join(threads[--begun], NULL);
    for (u32 i = 0; i < device_count; i++)
        if (tasks[i].fault) fail(tasks[i].fault);
}

static void *work(void *self)
{
    struct task *t = self;
    t->fault = kind->work(devices[t - tasks], t->key, t->stripes, t->threads, t->roots);
    return NULL;
}

static void key_of(u32 out[8], const u8 *secret, u32 index)
{
    u32 words[9];
    words_of(words, secret);
    words[8] = index;
    sha_words(out, words, 9, 0);
}

static void begin(const u8 *body, u32 length)
{
    if (length != 40 || !device_count) fail("the request to begin cannot be read");
    u32 stripes = number(body + 32), threads = number(body + 36);
    if (!stripes || stripes > shape.stripes || !threads || threads > shape.threads) fail("more is asked than planned");
    for (u32 i = 0; i < device_count; i++) {
        key_of(tasks[i].key, body, i);
        tasks[i].stripes = stripes;
        tasks[i].threads = threads;
    }
    on_all(work);
    header(device_count * stripes * 32, ROOTS);
    for (u32 i = 0; i < device_count; i++) give_digests(tasks[i].roots, stripes);
}

static void draw(const u32 key[8], u32 *r)
{
    for (u32 t = 0; t < shape.n / 8; t++) {
        sha_stream(r + t * 8, key, TAG_R, 0, t);
        for (int i = 0; i < 8; i++) r[t * 8 + i] &= PRIME_R;
    }
}

static void *run_passes(void *self)
{
    struct task *t = self;
    struct device *d = devices[t - tasks];
    u32 r[MAX_N], both[16];
    for (u32 pass = 0; pass < shape.passes && !t->fault; pass++) {
        u32 *list = t->lists + (size_t)pass * t->stripes * 8, *sum = t->sums + (pass + 1) * 8;
        draw(t->draw, r);
        if (!pass) t->fault = kind->inner(d, r, t->z);
        if (!t->fault) t->fault = kind->pass(d, pass, r, list);
        sha_words(sum, list, t->stripes * 8, 0);
        memcpy(both, t->draw, 32); /* the next r is known only to who has finished this one */
        memcpy(both + 8, sum, 32);
        sha_words(t->draw, both, 16, 0);
    }
    sha_words(t->sums, t->z, shape.n, 1);
    return NULL;
}

static void passes(const u8 *body, u32 length)
{
    if (length != 32 || !device_count || !tasks[0].stripes) fail("the request for the sums cannot be read");
    for (u32 i = 0; i < device_count; i++) key_of(tasks[i].draw, body, i);
    on_all(run_passes);
    header(device_count * (shape.passes + 1) * 32, SUMS);
    for (u32 i = 0; i < device_count; i++) give_digests(tasks[i].sums, shape.passes + 1);
}

static void open_row(u32 index, u32 row, u32 pass)
{
    u32 rows = shape.stripe_rows, leaves = rows / CHUNK_WORDS, depth = depth_of(rows), inner = depth_of(leaves);
    static int c[MAX_N];
    static u32 y[MAX_STRIPE], tree[MAX_STRIPE / CHUNK_WORDS * 16], path[64 * 8];
    if (row >= tasks[index].stripes * rows || pass >= shape.passes) fail("a row is asked for that is not there");
    const char *fault = kind->row(devices[index], row, c, path);
    if (!fault) fault = kind->stripe(devices[index], pass, row / rows, y);
    if (fault) fail(fault);
    u32 chunk = row % rows / CHUNK_WORDS;
    for (u32 i = 0; i < leaves; i++) sha_words(tree + (leaves + i) * 8, y + i * CHUNK_WORDS, CHUNK_WORDS, 1);
    build_tree(tree, leaves);
    header(shape.n * 4 + depth * 32 + CHUNK_WORDS * 4 + inner * 32, ROW);
    give(c, shape.n * 4);
    give_digests(path, depth);
    give(y + chunk * CHUNK_WORDS, CHUNK_WORDS * 4);
    path_of(tree, leaves, chunk, path);
    give_digests(path, inner);
}

static void open_rows(const u8 *body, u32 length)
{
    if (!device_count || !length || length % (8 * device_count)) fail("the request to open cannot be read");
    u32 each = length / 8 / device_count;
    for (u32 i = 0; i < device_count; i++) {
        header(shape.n * 4, INNER);
        give(tasks[i].z, shape.n * 4);
        for (u32 pass = 0; pass < shape.passes; pass++) {
            header(tasks[i].stripes * 32, LIST);
            give_digests(tasks[i].lists + (size_t)pass * tasks[i].stripes * 8, tasks[i].stripes);
        }
        for (u32 at = 0; at < each; at++) {
            const u8 *one = body + ((size_t)i * each + at) * 8;
            open_row(i, number(one), number(one + 4));
        }
    }
}

int main(void)
{
    static u8 body[MAX_REQUEST];
    for (;;) {
        u8 head[8];
        take(head, 8);
        u32 length = number(head), what = number(head + 4);
        if (length > sizeof body) fail("a request is too long");
        take(body, length);
        if (what == PLAN) plan(body, length);
        else if (what == PING) header(length, PONG), give(body, length);
        else if (what == BEGIN) begin(body, length);
        else if (what == PASSES) passes(body, length);
        else if (what == OPEN) open_rows(body, length);
        else fail("a request is of an unknown kind");
    }
}
