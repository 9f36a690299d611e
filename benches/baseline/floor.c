// The lower bound of a job: only the system calls that its guarantee needs. Two guard processes outlive the
// owner, and members are in a cgroup or below a guard. It does not check what a library must check, so it
// is only for comparison.
//
//   floor run MECHANISM DIR PROGRAM    a command around a program, with a record of the job
//   floor                              one request a line, one answer a line, as baseline/worker.c:
//       first MECHANISM DIR PROGRAM            the first job and one child: "ok NANOSECONDS"
//       spawn MECHANISM DIR COUNT PROGRAM      children in an existing job: "ok NANOSECONDS" for each
//       spawn-in-new-job DIR COUNT PROGRAM     children in a cgroup each
//
// MECHANISM is cgroup or subreaper. DIR is the parent of the job's cgroup.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static char *self;
static char *program;
static char stack[2][16384] __attribute__((aligned(16)));
static char *const top[2] = {stack[0] + sizeof stack[0], stack[1] + sizeof stack[1]};

static void need(int holds, const char *what) {
  if (holds) return;
  printf("err %s: %s\n", what, strerror(errno));
  exit(1);
}

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

// The guards

static int execute(void *unused) {
  (void)unused;
  char *argv[] = {program, NULL};
  execve(program, argv, environ);
  _exit(127);
}

// Reports that a child has started, with a pidfd of it, and its status.
static void serve(int owner) {
  int pidfd, status;
  char request;
  need(recv(owner, &request, 1, 0) == 1, "recv");
  pid_t pid = clone(execute, top[0], CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, NULL, &pidfd);
  need(pid > 0, "clone");
  struct iovec iov = {&pid, sizeof pid};
  char control[CMSG_SPACE(sizeof pidfd)] = {0};
  struct msghdr started = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr *cmsg = CMSG_FIRSTHDR(&started);
  cmsg->cmsg_level = SOL_SOCKET;
  cmsg->cmsg_type = SCM_RIGHTS;
  cmsg->cmsg_len = CMSG_LEN(sizeof pidfd);
  memcpy(CMSG_DATA(cmsg), &pidfd, sizeof pidfd);
  need(sendmsg(owner, &started, 0) > 0, "sendmsg");
  close(pidfd);
  need(waitpid(pid, &status, 0) == pid, "waitpid");
  send(owner, &status, sizeof status, 0);
}

// Descriptor 0 is a socket to the owner, 1 is the owner.
static void guard(void) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  pid_t inner = fork();
  if (inner > 0) {
    setsid();
    struct pollfd owner = {1, POLLIN, 0};
    poll(&owner, 1, -1);
    waitpid(inner, NULL, 0);
    _exit(0);
  }
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (;;) {
    struct pollfd either[] = {{0, POLLIN, 0}, {1, POLLIN, 0}};
    poll(either, 2, -1);
    if (either[1].revents || either[0].revents & POLLHUP) _exit(0);
    serve(0);
  }
}

static int begin_guard(void *fds) {
  dup2(((int *)fds)[0], 0);
  dup2(((int *)fds)[1], 1);
  char *argv[] = {self, "guard", program, NULL};
  execve(self, argv, environ);
  _exit(127);
}

// The process between owner and guard, so that the guard is not a child of the owner.
static int between(void *fds) {
  clone(begin_guard, top[1], CLONE_VM, fds);
  _exit(0);
}

static int start_guards(void) {
  static int ends[2], fds[2];
  need(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
  fds[0] = ends[1];
  fds[1] = syscall(SYS_pidfd_open, getpid(), 0);
  pid_t pid = clone(between, top[0], CLONE_VM | CLONE_VFORK | SIGCHLD, fds);
  need(pid > 0 && waitpid(pid, NULL, 0) == pid, "clone");
  return ends[0];
}

// The children

static void by_guard(int guard) {
  int pidfd, status = -1;
  pid_t pid;
  char control[CMSG_SPACE(sizeof pidfd)];
  struct iovec iov = {&pid, sizeof pid};
  struct msghdr started = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  need(send(guard, "s", 1, 0) == 1, "send");
  need(recvmsg(guard, &started, MSG_CMSG_CLOEXEC) > 0, "recvmsg");
  memcpy(&pidfd, CMSG_DATA(CMSG_FIRSTHDR(&started)), sizeof pidfd);
  need(recv(guard, &status, sizeof status, 0) > 0 && !status, "the program");
  close(pidfd);
}

__attribute__((used)) static void execute_now(void) { execute(NULL); }

// The C library has no wrapper for clone3(2) with shared memory: the child continues on another stack.
static pid_t clone_sharing(struct clone_args *args) {
#if defined(__x86_64__)
  args->flags |= CLONE_VM;
  args->stack = (unsigned long)stack[0];
  args->stack_size = sizeof stack[0];
  long pid;
  __asm__ volatile("syscall\n test %%rax, %%rax\n jnz 1f\n xor %%ebp, %%ebp\n call execute_now\n1:"
                   : "=a"(pid) : "a"(SYS_clone3), "D"(args), "S"(sizeof *args)
                   : "rcx", "r11", "memory");
  return pid;
#else
  pid_t pid = syscall(SYS_clone3, args, sizeof *args);
  if (!pid) execute_now();
  return pid;
#endif
}

static void by_cgroup(int cgroup) {
  int pidfd, status;
  struct clone_args args = {
      .flags = CLONE_INTO_CGROUP | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
      .pidfd = (unsigned long)&pidfd, .exit_signal = SIGCHLD, .cgroup = (unsigned)cgroup};
  pid_t pid = clone_sharing(&args);
  need(pid > 0 && waitpid(pid, &status, 0) == pid && !status, "the program");
  close(pidfd);
}

static char cgroup[4096];

static int make_cgroup(const char *below) {
  snprintf(cgroup, sizeof cgroup, "%s/floor-%d", below, getpid());
  need(!mkdir(cgroup, 0700), cgroup);
  return open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void remove_cgroup(int dir) {
  need(!rmdir(cgroup), cgroup);
  close(dir);
}

static int is_cgroup(const char *mechanism) { return !strcmp(mechanism, "cgroup"); }

static void first(const char *mechanism, const char *below) {
  long begin = now();
  int guard = start_guards(), dir = is_cgroup(mechanism) ? make_cgroup(below) : -1;
  dir < 0 ? by_guard(guard) : by_cgroup(dir);
  printf("ok %ld\n", now() - begin);
  if (dir >= 0) remove_cgroup(dir);
}

static void spawn(const char *mechanism, const char *below, int count) {
  static int guard, dir;
  if (!guard && !is_cgroup(mechanism)) guard = start_guards();
  if (!dir && is_cgroup(mechanism)) dir = make_cgroup(below);
  long begin = now();
  for (int i = 0; i < count; i++) is_cgroup(mechanism) ? by_cgroup(dir) : by_guard(guard);
  printf("ok %ld\n", (now() - begin) / count);
}

static void spawn_in_new_jobs(const char *below, int count) {
  long begin = now();
  for (int i = 0; i < count; i++) {
    int dir = make_cgroup(below);
    by_cgroup(dir);
    remove_cgroup(dir);
  }
  printf("ok %ld\n", (now() - begin) / count);
}

// The record is a file that other processes find as long as the job exists.
static int run(const char *mechanism, const char *below) {
  char draft[64], final[64];
  snprintf(draft, sizeof draft, "/run/floor-%d.new", getpid());
  snprintf(final, sizeof final, "/run/floor-%d", getpid());
  int guard = start_guards(), dir = is_cgroup(mechanism) ? make_cgroup(below) : -1;
  int file = open(draft, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  flock(file, LOCK_EX);
  need(write(file, draft, sizeof draft) > 0 && !rename(draft, final), draft);
  dir < 0 ? by_guard(guard) : by_cgroup(dir);
  if (dir >= 0) remove_cgroup(dir);
  return unlink(final);
}

int main(int argc, char **argv) {
  char line[8192], *words[8];
  self = argv[0];
  program = argv[argc - 1];
  if (argc == 3 && !strcmp(argv[1], "guard")) guard();
  if (argc == 5 && !strcmp(argv[1], "run")) return run(argv[2], argv[3]);
  setvbuf(stdout, NULL, _IOLBF, 0);
  while (fgets(line, sizeof line, stdin)) {
    int count = 0;
    for (char *word = strtok(line, " \n"); word && count < 7; word = strtok(NULL, " \n"))
      words[count++] = word;
    words[count] = NULL;
    if (count < 4) return 2;
    // Also of the guard program, with which the guards are started.
    program = strdup(words[count - 1]);
    if (!strcmp(words[0], "first")) first(words[1], words[2]);
    else if (!strcmp(words[0], "spawn") && count == 5) spawn(words[1], words[2], atoi(words[3]));
    else if (!strcmp(words[0], "spawn-in-new-job")) spawn_in_new_jobs(words[1], atoi(words[2]));
    else printf("err unknown: %s\n", words[0]);
  }
  return 0;
}
