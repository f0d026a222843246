/* What the parts of the prover know of each other. docs/proof.md has the protocol. */
#ifndef QUBIX_PROVER_H
#define QUBIX_PROVER_H

#include <stddef.h>
#include <stdint.h>
#include "sha256.h"

typedef unsigned char u8;

enum { MAX_N = 16384, MAX_STRIPE = 8192, MAX_STRIPES = 1 << 20, MAX_PASSES = 64, MAX_DEVICES = 64, MAX_THREADS = 1024 };
#define PRIME_R 0x7fffffffu

struct shape {
    u32 n;           /* inner and outer size, a multiple of 256 */
    u32 stripe_rows; /* rows of C that share a tree: a power of two, at least 128 */
    u32 stripes;
    u32 passes;
    u32 threads;     /* of a processor */
};

struct identity {
    u8 uuid[16];
    u64 memory;
    char name[64];
};

struct device;

/* One sort of device. All but `count` and `open` return 0, or the reason why not. */
struct kind {
    int (*count)(void);
    /* The reserved memory is what all later calls use. NULL and *fault if it cannot be had. */
    struct device *(*open)(int index, const struct shape *shape, struct identity *who, const char **fault);
    /* Fill `stripes` stripes anew from the key; a root of each. */
    const char *(*work)(struct device *, const u32 key[8], u32 stripes, u32 threads, u32 *roots);
    /* y = S * r: a root for each stripe's y. */
    const char *(*pass)(struct device *, u32 pass, const u32 *r, u32 *roots);
    /* z = B * r. */
    const char *(*inner)(struct device *, const u32 *r, u32 *z);
    /* One row of C and the digests beside its way to the root, leaf's neighbour first. */
    const char *(*row)(struct device *, u32 row, int *c, u32 *path);
    /* One stripe's y of a pass. */
    const char *(*stripe)(struct device *, u32 pass, u32 stripe, u32 *y);
};

extern const struct kind cpu_kind;
#ifdef QUBIX_CUDA
extern const struct kind cuda_kind;
#endif

/* log2 of a power of two. */
static inline u32 depth_of(u32 leaves)
{
    u32 depth = 0;
    while (leaves >>= 1) depth++;
    return depth;
}

/* Inner nodes of a heap whose leaves are there: nodes 1 to leaves - 1. */
static inline void build_tree(u32 *tree, u32 leaves)
{
    for (u32 node = leaves - 1; node; node--) sha_words(tree + node * 8, tree + node * 16, 16, 0);
}

static inline void path_of(const u32 *tree, u32 leaves, u32 leaf, u32 *path)
{
    for (u32 node = leaves + leaf; node > 1; node /= 2, path += 8)
        for (int i = 0; i < 8; i++) path[i] = tree[(node ^ 1) * 8 + i];
}

#endif
