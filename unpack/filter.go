// A filter for system calls that the work and its programs never make, and that reach much of the kernel: above all,
// those that would make another user namespace, in which it would have every capability.

package main

import (
	"fmt"
	"syscall"
	"unsafe"
)

const (
	archX8664         = 0xc000_003e
	numberAt          = 0
	archAt            = 4
	firstArgumentAt   = 16
	x32Calls          = 0x4000_0000
	seccompKill       = 0x8000_0000
	seccompError      = 0x0005_0000
	seccompAllow      = 0x7fff_0000
	sysSeccomp        = 317
	seccompSetFilter  = 1
	seccompAllThreads = 1 // SECCOMP_FILTER_FLAG_TSYNC
	sysClone3         = 435
)

// refused are calls by number, for this architecture.
var refused = []uint32{
	syscall.SYS_SOCKET, syscall.SYS_SOCKETPAIR, syscall.SYS_PTRACE, 310, 311, // process_vm_readv, process_vm_writev
	syscall.SYS_MOUNT, syscall.SYS_UMOUNT2, syscall.SYS_PIVOT_ROOT, syscall.SYS_CHROOT, syscall.SYS_UNSHARE,
	308,                // setns
	428, 429, 430, 432, // open_tree, move_mount, fsopen, fsmount
	442, 433, // mount_setattr, fspick
	304, 303, // open_by_handle_at, name_to_handle_at
	syscall.SYS_ADD_KEY, syscall.SYS_REQUEST_KEY, syscall.SYS_KEYCTL,
	321, 323, 298, // bpf, userfaultfd, perf_event_open
	425, 426, 427, // io_uring_setup, io_uring_enter, io_uring_register
	syscall.SYS_INIT_MODULE, syscall.SYS_DELETE_MODULE, 313, syscall.SYS_KEXEC_LOAD, 320, // finit_module, kexec_file_load
	syscall.SYS_IOPL, syscall.SYS_IOPERM, syscall.SYS_MODIFY_LDT, syscall.SYS_SWAPON, syscall.SYS_SWAPOFF,
	syscall.SYS_SHMGET, syscall.SYS_SHMAT, syscall.SYS_MSGGET, syscall.SYS_SEMGET, 240, // mq_open
	syscall.SYS_PERSONALITY, 438, // pidfd_getfd
}

func load(offset uint32) syscall.SockFilter {
	return syscall.SockFilter{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, K: offset}
}

func answer(value uint32) syscall.SockFilter {
	return syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: value}
}

// when answers so if the loaded value compares with the given one.
func when(comparison uint16, value, then uint32) []syscall.SockFilter {
	return []syscall.SockFilter{
		{Code: syscall.BPF_JMP | syscall.BPF_K | comparison, Jf: 1, K: value}, answer(then),
	}
}

func workFilter() []syscall.SockFilter {
	const equal, atLeast, has = syscall.BPF_JEQ, syscall.BPF_JGE, syscall.BPF_JSET
	deny := seccompError | uint32(syscall.EPERM)
	all := []syscall.SockFilter{
		load(archAt),
		{Code: syscall.BPF_JMP | syscall.BPF_K | equal, Jt: 1, K: archX8664}, answer(seccompKill),
		load(numberAt),
	}
	all = append(all, when(atLeast, x32Calls, seccompError|uint32(syscall.ENOSYS))...)
	// Its flags are in memory, which a filter cannot read; programs then use the older call.
	all = append(all, when(equal, sysClone3, seccompError|uint32(syscall.ENOSYS))...)
	for _, call := range refused {
		all = append(all, when(equal, call, deny)...)
	}
	all = append(all, syscall.SockFilter{Code: syscall.BPF_JMP | syscall.BPF_K | equal, Jt: 1, K: syscall.SYS_CLONE},
		answer(seccompAllow), load(firstArgumentAt))
	const namespaces = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
		syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	all = append(all, when(has, namespaces, deny)...)
	return append(all, answer(seccompAllow))
}

// filterCalls is for all threads, and what they start.
func filterCalls() error {
	filter := workFilter()
	program := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := syscall.RawSyscall(sysSeccomp, seccompSetFilter, seccompAllThreads, uintptr(unsafe.Pointer(&program)))
	if errno != 0 || thread != 0 {
		return fmt.Errorf("filter system calls: %w (thread %d)", errno, thread)
	}
	return nil
}
