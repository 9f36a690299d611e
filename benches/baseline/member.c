// The program that is started and killed: minimal, without a C library.
//
//   member                      ends at once
//   member COUNT FIFO [MODE]    a tree of COUNT, ten children each; each writes a byte to FIFO and waits
//       hold    keeps FIFO open: its reader sees the end of the last process
//       escape  COUNT is 2: itself, and a daemon that has left session and parent

#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
enum { WRITE = 1, CLOSE = 3, OPENAT = 257, CLONE = 56, EXIT = 231, SETSID = 112, PAUSE_PPOLL = 271 };
static long call(long n, long a, long b, long c, long d, long e) {
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
  long answer;
  __asm__ volatile("syscall" : "=a"(answer) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
  return answer;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x0, sp\n bl begin\n");
enum { WRITE = 64, CLOSE = 57, OPENAT = 56, CLONE = 220, EXIT = 94, SETSID = 157, PAUSE_PPOLL = 73 };
static long call(long n, long a, long b, long c, long d, long e) {
  register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
}
#else
#error "this architecture has no entry here yet"
#endif

enum { SIGCHLD_ = 17, AT_FDCWD_ = -100, O_WRONLY_ = 1 };

// With thousands of processes the kernel sometimes returns EAGAIN for some milliseconds.
static long fork_(void) {
  enum { EAGAIN_ = 11, TRIES = 10000 };
  long pid = -EAGAIN_;
  for (int tries = 0; pid == -EAGAIN_ && tries < TRIES; tries++) {
    long millisecond[2] = {0, 1000000};
    if (tries > 0) call(PAUSE_PPOLL, 0, 0, (long)millisecond, 0, 8);
    pid = call(CLONE, SIGCHLD_, 0, 0, 0, 0);
  }
  return pid;
}
static void end(int code) {
  for (;;) call(EXIT, code, 0, 0, 0, 0);
}

static long number(const char *text) {
  long value = 0;
  while (*text >= '0' && *text <= '9') value = 10 * value + *text++ - '0';
  return value;
}

static void wait_for_the_end(const char *fifo, int hold) {
  long fd = call(OPENAT, AT_FDCWD_, (long)fifo, O_WRONLY_, 0, 0);
  if (fd < 0 || call(WRITE, fd, (long)"+", 1, 0, 0) != 1) end(3);
  if (!hold) call(CLOSE, fd, 0, 0, 0, 0);
  for (;;) call(PAUSE_PPOLL, 0, 0, 0, 0, 8);
}

// Becomes the root of a tree of `count`: the others are divided evenly among its children.
static void grow(long count) {
  long others = count - 1;
  for (long left = others < 10 ? others : 10; left > 0; left--) {
    long share = others / left;
    others -= share;
    long pid = fork_();
    if (pid < 0) end(-pid);
    if (pid == 0) {
      grow(share);
      return;
    }
  }
}

static void escape(void) {
  long pid = fork_();
  if (pid < 0) end(4);
  if (pid > 0) return;
  call(SETSID, 0, 0, 0, 0, 0);
  if (fork_() != 0) end(0);
}

__attribute__((used)) void begin(long *stack) {
  long argc = stack[0];
  char **argv = (char **)(stack + 1);
  if (argc < 3) end(0);
  char mode = argc > 3 ? argv[3][0] : '-';
  if (mode == 'e')
    escape();
  else
    grow(number(argv[1]));
  wait_for_the_end(argv[2], mode == 'h');
}
