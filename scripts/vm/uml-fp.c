/* User-mode-linux 6.1 sets the floating point registers of its processes with a buffer of a size fixed at
 * compile time. On processors with a larger state (AMX) the host's kernel accepts only the complete state
 * (EFAULT, and the guest panics). So read the complete state, overwrite its beginning with the given part,
 * and set it. This library is preloaded, because user-mode-linux calls the C library's ptrace. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define NT_X86_XSTATE 0x202

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(enum __ptrace_request, ...);
	static char whole[65536] __attribute__((aligned(64)));
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);
	if (!next)
		next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
	long answer = next(request, pid, address, data);
	if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE || answer != -1 || errno != EFAULT)
		return answer;
	struct iovec *part = data, all = { whole, sizeof whole };
	if (next(PTRACE_GETREGSET, pid, address, &all) == -1 || part->iov_len > all.iov_len)
		return -1;
	memcpy(whole, part->iov_base, part->iov_len);
	return next(PTRACE_SETREGSET, pid, address, &all);
}
