// What the attacker's seat does that Go has no words for.
#ifndef BULKHEAD_SEAT_NATIVE_H
#define BULKHEAD_SEAT_NATIVE_H

#include <stdint.h>
#include <stdlib.h>

// seat_int80 makes a call through the i386 entry of an x86-64 kernel; -38 on other machines.
long seat_int80(long nr, long a, long b, long c, long d, long e, long f);

// seat_threads makes up to n sleeping threads with small stacks and returns how many it got.
int seat_threads(int n);

// seat_code is the address of a function.
uintptr_t seat_code(void);

// seat_read_child forks and reads a word of the child's memory with process_vm_readv(2): 0, the errno,
// or -1 if there was no fork.
int seat_read_child(void);

// seat_run forks and executes path with argv {name, arg}; what it prints goes to out. It returns
// the number of bytes, or the negative errno.
int seat_run(const char *path, const char *name, const char *arg, char *out, int size);

// seat_capabilities is the effective set of the calling thread.
uint64_t seat_capabilities(void);

#endif
