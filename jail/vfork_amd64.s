// vfork: a new process that shares our memory and stack, while we wait until it has become another program or ended.

#include "textflag.h"

// func vfork(flags uintptr) (pid, errno uintptr)
// The return address is kept in a register, because the new process, which returns first, writes over it on the stack.
TEXT ·vfork(SB),NOSPLIT|NOFRAME,$0-24
	MOVQ	flags+0(FP), DI
	MOVQ	$0, SI
	MOVQ	$0, DX
	MOVQ	$0, R10
	MOVQ	$0, R8
	MOVQ	$56, AX
	POPQ	R12
	SYSCALL
	PUSHQ	R12
	CMPQ	AX, $0xfffffffffffff001
	JLS	made
	NEGQ	AX
	MOVQ	$0, pid+8(FP)
	MOVQ	AX, errno+16(FP)
	RET
made:
	MOVQ	AX, pid+8(FP)
	MOVQ	$0, errno+16(FP)
	RET
