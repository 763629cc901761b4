// Numbers of system calls that Go's syscall package does not name.

package main

const sysFinitModule = 313
