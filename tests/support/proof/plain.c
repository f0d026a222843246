/* The product of a proof and nothing else: no hashing, nobody who asks. Arguments: n, rows of a stripe, stripes,
   threads. Prints the seconds that it took. The reference of tests/bench/bench_proof.py. */
#define _GNU_SOURCE
#include <stdio.h>
#include <time.h>
#include "cpu.c"

static void *plain_part(void *self)
{
    struct device *d = self;
    u32 n = d->shape.n, rows = d->shape.stripe_rows;
    s16 *a = calloc((u64)rows * n, sizeof *a);
    int *c = malloc((u64)rows * n * sizeof *c);
    for (u32 stripe; a && c && (stripe = atomic_fetch_add(&d->next, 1)) < d->stripes;)
        multiply(d, a, c, d->s + (u64)stripe * rows * n);
    free(a);
    free(c);
    return NULL;
}

int main(int count, char **said)
{
    if (count != 5) return 2;
    struct shape shape = {(u32)atoi(said[1]), (u32)atoi(said[2]), (u32)atoi(said[3]), 1, (u32)atoi(said[4])};
    struct identity who;
    struct timespec begun, ended;
    const char *fault;
    struct device *d = cpu_kind.open(0, &shape, &who, &fault);
    if (!d) return 1;
    d->stripes = shape.stripes;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    share_out(d, shape.threads, plain_part);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%.6f\n", (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9);
    return 0;
}
