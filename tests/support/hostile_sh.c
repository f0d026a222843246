/* A /bin/sh that is none: what a caller's image may hold where the runner asks for a shell.

As the job's first process it comes to the gate if the script says "polite", else never. As a program beside
the job it tells its process id and stays. As the one that shall end such a program it talks for ever. */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc == 6 && strstr(argv[5], "polite"))
        close(open(".qubix-gate", O_WRONLY | O_CREAT | O_TRUNC, 0644));
    if (argc > 2 && strncmp(argv[2], "kill", 4) == 0)
        for (;; sleep(1))
            if (write(1, "no\n", 3) != 3)
                return 1;
    printf("%d\n", (int)getpid());
    fflush(stdout);
    for (;;)
        pause();
}
