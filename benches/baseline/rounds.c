/* rounds COUNT WARM-UP COMMAND… [--next COMMAND…]…: runs each command once a round, each round beginning with
 * another one, and says `measured: ROUND WHICH NANOSECONDS` of each from before its start until it has
 * been waited for. A command that fails ends it. */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long run(char **command)
{
	pid_t pid;
	int status, error;
	long long began = now();
	error = posix_spawn(&pid, command[0], NULL, NULL, command, environ);
	if (error) {
		fprintf(stderr, "%s: %s\n", command[0], strerror(error));
		exit(1);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	long long took = now() - began;
	if (status) {
		fprintf(stderr, "%s: wait status %d\n", command[0], status);
		exit(1);
	}
	return took;
}

int main(int argc, char **argv)
{
	enum { MOST = 16 };
	char **commands[MOST];
	int many = 0;
	if (argc < 4)
		return 2;
	for (int at = 3; at < argc && many < MOST; at++) {
		commands[many++] = argv + at;
		while (at < argc && strcmp(argv[at], "--next"))
			at++;
		argv[at] = NULL;
	}
	int rounds = atoi(argv[1]), warm_up = atoi(argv[2]);
	for (int round = -warm_up; round < rounds; round++)
		for (int turn = 0; turn < many; turn++) {
			int which = (round + warm_up + turn) % many;
			long long took = run(commands[which]);
			if (round >= 0)
				printf("measured: %d %d %lld\n", round, which, took);
		}
	return 0;
}
