/* What our own programs in containers have in place of a C library: system calls, words for people, a beginning.
 *
 * Put in front of fence.c and of porter.c, which each define `run`. A C library would take a compiler half a
 * minute to build where they are compiled.
 */
#include <linux/errno.h>
#include <linux/unistd.h>

#if defined(__x86_64__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");

static long call(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x29, xzr\n mov x0, sp\n bl begin\n");

static long call(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#endif

static void say(const char *text) {
    long size = 0;
    while (text[size])
        size++;
    call(__NR_write, 1, (long)text, size, 0, 0, 0);
}

static int fail(const char *what, long error) {
    char digits[] = ": errno    \n", *at = digits + 10;
    for (long left = error < 0 ? -error : error; left && at > digits + 7; left /= 10)
        *at-- = (char)('0' + left % 10);
    say(what);
    say(digits);
    return 1;
}

static int same(const char *one, const char *other) {
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

static int run(long count, char **words);

/* `stack`: the number of words, then the words, as the kernel leaves them. */
__attribute__((used, noreturn)) void begin(long *stack) {
    long code = run(stack[0], (char **)(stack + 1));
    for (;;)
        call(__NR_exit_group, code, 0, 0, 0, 0, 0);
}
