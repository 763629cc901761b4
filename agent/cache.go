// Large archives pass the page cache: their files would push out what the sandbox's programs use, and stay in this
// machine's memory, which the host has to save.
//
// Reading leaves in the cache what was there before. Written files leave it once they are on the disk.

package main

import (
	"syscall"
	"unsafe"
)

const (
	// cachedBytesMax is how much of an archive stays in the cache, so that small ones cost no disk.
	cachedBytesMax = 32 << 20
	// uncachedBytesStep limits what a file has in the cache meanwhile, and the small files that wait to be written.
	uncachedBytesStep = 8 << 20
	uncachedFilesMax  = 64

	adviceDontNeed = 4 // POSIX_FADV_DONTNEED
	readNoWait     = 8 // RWF_NOWAIT
	syncStart      = 2 // SYNC_FILE_RANGE_WRITE
	syncWait       = 7 // … and wait for it
	sysPreadv2     = 327
)

// isCached reports whether the page at an offset is in the cache.
func isCached(fd int, offset int64) bool {
	var one [1]byte
	vector := syscall.Iovec{Base: &one[0], Len: 1}
	count, _, errno := syscall.Syscall6(sysPreadv2, uintptr(fd), uintptr(unsafe.Pointer(&vector)), 1, uintptr(offset), 0, readNoWait)
	return errno == 0 && count == 1
}

// dropCached is a hint: pages that are not written yet stay.
func dropCached(fd int, offset, length int64) {
	_, _, _ = syscall.Syscall6(syscall.SYS_FADVISE64, uintptr(fd), uintptr(offset), uintptr(length), adviceDontNeed, 0, 0)
}

// writeOut writes a range of a file to the disk; length 0 means to its end.
func writeOut(fd int, offset, length int64, how uintptr) {
	_, _, _ = syscall.Syscall6(syscall.SYS_SYNC_FILE_RANGE, uintptr(fd), uintptr(offset), uintptr(length), how, 0, 0)
}

// readPast drops what reading a file brings into the cache.
type readPast struct {
	fd      int
	isOn    bool
	read    int64
	dropped int64
}

// newReadPast looks at the cache before the file is read. before counts the bytes that the archive has already.
func newReadPast(fd int, size, before int64) readPast {
	isLarge := before+size > cachedBytesMax
	isInCache := isLarge && (isCached(fd, 0) || isCached(fd, size/2) || isCached(fd, size-1))
	return readPast{fd: fd, isOn: isLarge && !isInCache}
}

func (r *readPast) took(count int) {
	r.read += int64(count)
	if r.read-r.dropped >= uncachedBytesStep {
		r.drop()
	}
}

func (r *readPast) drop() {
	if r.isOn {
		// The kernel has read ahead; length 0 is the rest of the file.
		dropCached(r.fd, 0, 0)
		r.dropped = r.read
	}
}

// writtenPast drops written files once they are on the disk.
type writtenPast struct {
	total   int64
	waiting []int // descriptors of small files
	bytes   int64
	// started is the end of the current file's part whose writing has begun, done of what left the cache.
	started, done int64
}

// begin starts the next file.
func (w *writtenPast) begin() { w.started, w.done = 0, 0 }

// wrote is called while a file grows: size is its size until now.
func (w *writtenPast) wrote(fd int, size int64) {
	if w.total+size <= cachedBytesMax || size-w.started < uncachedBytesStep {
		return
	}
	// The kernel writes this step while the next one comes.
	writeOut(fd, w.started, size-w.started, syncStart)
	if w.started > w.done {
		writeOut(fd, w.done, w.started-w.done, syncWait)
		dropCached(fd, w.done, w.started-w.done)
		w.done = w.started
	}
	w.started = size
}

// finish takes a whole file.
func (w *writtenPast) finish(fd int, size int64) {
	w.total += size
	if w.total <= cachedBytesMax || size == 0 {
		return
	}
	copied, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return
	}
	writeOut(fd, 0, 0, syncStart)
	w.waiting = append(w.waiting, int(copied))
	if w.bytes += size - w.done; w.bytes >= uncachedBytesStep || len(w.waiting) >= uncachedFilesMax {
		w.flush()
	}
}

func (w *writtenPast) flush() {
	for _, fd := range w.waiting {
		writeOut(fd, 0, 0, syncWait)
		dropCached(fd, 0, 0)
		syscall.Close(fd)
	}
	w.waiting, w.bytes = nil, 0
}
