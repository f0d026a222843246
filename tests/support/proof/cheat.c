/* The program of a cheater without a GPU: the honest one, with what QUBIX_CHEAT names done differently.

   skip N    one of N rows of C is left out and committed to as zeros
   own_seed  a product that was computed before the question, for another seed
   sums N    what is kept of one of N rows was thrown away: its sums are zeros
   inner     z is of another matrix
   row       opens other rows than it committed to */
#define cpu_kind honest_kind
#include "cpu.c"
#undef cpu_kind

static const char *cheat(const char *name, u32 *number)
{
    const char *said = getenv("QUBIX_CHEAT");
    size_t size = strlen(name);
    if (!said || strncmp(said, name, size)) return NULL;
    *number = said[size] ? (u32)atoi(said + size) : 0;
    return said;
}

static const char *cheat_work(struct device *d, const u32 key[8], u32 stripes, u32 threads, u32 *roots)
{
    u32 every, n = d->shape.n, rows = d->shape.stripe_rows, other[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const char *fault = honest_kind.work(d, cheat("own_seed", &every) ? other : key, stripes, threads, roots);
    if (!cheat("skip", &every)) return fault;
    int *zeros = calloc(n, sizeof *zeros);
    for (u32 stripe = 0; stripe < stripes; stripe++) {
        u32 *tree = d->trees + (u64)stripe * 2 * rows * 8;
        for (u32 row = 0; row < rows; row += every) {
            leaf_of(zeros, n, tree + (rows + row) * 8);
            memset(d->s + ((u64)stripe * rows + row) * n, 0, n);
        }
        build_tree(tree, rows);
        memcpy(roots + stripe * 8, tree + 8, 32);
    }
    free(zeros);
    return fault;
}

static const char *cheat_pass(struct device *d, u32 pass, const u32 *r, u32 *roots)
{
    u32 every, rows = d->shape.stripe_rows;
    const char *fault = honest_kind.pass(d, pass, r, roots);
    if (!cheat("sums", &every)) return fault;
    for (u32 stripe = 0; stripe < d->stripes; stripe++) {
        u32 *y = y_of(d, pass, stripe);
        for (u32 row = 0; row < rows; row += every) y[row] = 0;
        chunk_root(y, rows, roots + stripe * 8);
    }
    return fault;
}

static const char *cheat_inner(struct device *d, const u32 *r, u32 *z)
{
    u32 unused;
    const char *fault = honest_kind.inner(d, r, z);
    for (u32 k = 0; cheat("inner", &unused) && k < d->shape.n; k++) z[k] ^= 1;
    return fault;
}

static const char *cheat_row(struct device *d, u32 row, int *c, u32 *path)
{
    u32 every;
    const char *fault = honest_kind.row(d, row, c, path);
    if (cheat("skip", &every) && row % d->shape.stripe_rows % every == 0) memset(c, 0, d->shape.n * sizeof *c);
    if (cheat("row", &every)) c[0] += 65536;
    return fault;
}

const struct kind cpu_kind = {cpu_count, cpu_open, cheat_work, cheat_pass, cheat_inner, cheat_row, cpu_stripe};
