// The lower bound: the same work without a library.
//
// One request a line on standard input, one answer a line: "ok NUMBERS…" or "err TEXT". Times are in
// nanoseconds. It is a subreaper and reaps the orphans below it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void die(const char *what) {
  printf("err %s: %s\n", what, strerror(errno));
  exit(1);
}

static pid_t start(char **argv) {
  pid_t pid;
  errno = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
  if (errno) die(argv[0]);
  return pid;
}

static void spawn_and_wait(long count, char **argv) {
  for (long i = 0; i < count; i++) {
    int status;
    pid_t pid = start(argv);
    if (waitpid(pid, &status, 0) != pid) die("waitpid");
    if (status) {
      errno = 0;
      die("the program has failed");
    }
  }
}

// A new cgroup for each tree: a cgroup is not used again after a kill.
static char cgroup[4096];

static void write_to(const char *name, const char *text) {
  char path[4200];
  snprintf(path, sizeof path, "%s/%s", cgroup, name);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) die(path);
  close(fd);
}

static pid_t start_inside(const char *below, char **argv) {
  static int number;
  snprintf(cgroup, sizeof cgroup, "%s/raw-%d", below, number++);
  if (mkdir(cgroup, 0755)) die(cgroup);
  int dir = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct clone_args args = {
      .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (unsigned)dir};
  pid_t pid = syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0) die("clone3");
  if (pid == 0) {
    execve(argv[0], argv, environ);
    _exit(127);
  }
  close(dir);
  return pid;
}

// Reaps orphans that have ended, such as guards: zombies would use memory during the measurements.
static void reap_orphans(void) {
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
}

static void reap_all(void) {
  while (wait(NULL) > 0 || errno == EINTR) {
  }
}

// Sends SIGTERM to every process of the cgroup, once.
static void terminate(void) {
  char path[4200];
  snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
  FILE *procs = fopen(path, "re");
  int pid;
  while (fscanf(procs, "%d", &pid) == 1) kill(pid, SIGTERM);
  fclose(procs);
}

// The time from the kill until no process has the FIFO open, two seconds at most.
static void death(const char *whom, const char *fifo) {
  int fd = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
  if (fd < 0) die(fifo);
  long begin = now();
  if (!strcmp(whom, "cgroup"))
    write_to("cgroup.kill", "1");
  else if (kill(atoi(whom), SIGKILL))
    die("kill");
  int fired = poll(&poll_fd, 1, 2000);
  long end = now();
  close(fd);
  if (fired == 1)
    printf("ok %ld\n", end - begin);
  else
    printf("no end within 2 s\n");
}

int main(void) {
  char line[8192], *words[64];
  setvbuf(stdout, NULL, _IOLBF, 0);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  while (fgets(line, sizeof line, stdin)) {
    int count = 0;
    for (char *word = strtok(line, " \n"); word && count < 63; word = strtok(NULL, " \n"))
      words[count++] = word;
    words[count] = NULL;
    const char *verb = count ? words[0] : "";
    if (!strcmp(verb, "spawn")) { // COUNT PROGRAM ARGS…
      reap_orphans();
      long each = atol(words[1]), begin = now();
      spawn_and_wait(each, words + 2);
      printf("ok %ld\n", (now() - begin) / each);
    } else if (!strcmp(verb, "plain")) { // PROGRAM ARGS…: the pid of the root
      printf("ok %d\n", start(words + 1));
    } else if (!strcmp(verb, "tree")) { // DIRECTORY PROGRAM ARGS…
      printf("ok %d\n", start_inside(words[1], words + 2));
    } else if (!strcmp(verb, "kill")) {
      long begin = now();
      write_to("cgroup.kill", "1");
      reap_all();
      printf("ok %ld\n", now() - begin);
      rmdir(cgroup);
    } else if (!strcmp(verb, "term")) {
      long begin = now();
      terminate();
      reap_all();
      printf("ok %ld\n", now() - begin);
      rmdir(cgroup);
    } else if (!strcmp(verb, "death")) { // PID|cgroup FIFO
      death(words[1], words[2]);
    } else if (!strcmp(verb, "reap")) { // when the last one was reaped
      reap_all();
      printf("ok %ld\n", now());
    } else {
      printf("err unknown: %s\n", verb);
    }
  }
  return 0;
}
