// Numbers of system calls and flags that Go's syscall package does not define, or names differently on each
// architecture.

package main

import "syscall"

const (
	sysFinitModule = 313
	sysOpenat2     = 437
	sysSetns       = 308
	sysFstatat     = syscall.SYS_NEWFSTATAT
	flagTemporary  = 0x400000 | syscall.O_DIRECTORY // O_TMPFILE
)
