// Writes a large file past the page cache. Under emulation the cache's work is most of the cost of an upload, and
// its pages would stay in this machine's memory, which the host would have to save.

package main

import (
	"io"
	"os"
	"syscall"
)

const (
	// directBytesMin keeps small files, which are read again soon, in the cache.
	directBytesMin = 1 << 20
	// directBufferBytes is a stream's window: while one buffer is written, the host sends the next.
	directBufferBytes = 1 << 18
	// directBlockBytes suits files on any disk; mapped memory begins at a multiple of it.
	directBlockBytes = 4096
)

// fileWriter writes a new file from its beginning to its end.
type fileWriter struct {
	file     int
	buffer   []byte // nil: through the cache
	filled   int
	isDirect bool
	// endsInHole is set if the last bytes were zeros, which are not written.
	endsInHole bool
}

// newFileWriter writes directly if the file is large and its filesystem supports it.
func newFileWriter(file int, size *int64) *fileWriter {
	w := &fileWriter{file: file}
	if size == nil || *size < directBytesMin || setDirect(file, true) != nil {
		return w
	}
	w.isDirect = true
	const protection, flags = syscall.PROT_READ | syscall.PROT_WRITE, syscall.MAP_PRIVATE | syscall.MAP_ANONYMOUS
	buffer, err := syscall.Mmap(-1, 0, directBufferBytes, protection, flags)
	if err != nil {
		return w
	}
	w.buffer = buffer
	return w
}

// write calls taken whenever it no longer needs some of the bytes.
func (w *fileWriter) write(bytes []byte, taken func(count int)) error {
	if w.buffer == nil {
		if err := w.put(bytes); err != nil {
			return err
		}
		taken(len(bytes))
		return nil
	}
	for len(bytes) > 0 {
		count := copy(w.buffer[w.filled:], bytes)
		w.filled += count
		bytes = bytes[count:]
		taken(count)
		if w.filled < len(w.buffer) {
			return nil
		}
		if err := w.put(w.buffer); err != nil {
			return err
		}
		w.filled = 0
	}
	return nil
}

// finish writes the remaining bytes. Direct writes need whole blocks.
func (w *fileWriter) finish() error {
	whole := w.filled &^ (directBlockBytes - 1)
	if err := w.put(w.buffer[:whole]); err != nil {
		return err
	}
	if err := w.stopDirect(); err != nil {
		return err
	}
	if err := w.put(w.buffer[whole:w.filled]); err != nil || !w.endsInHole {
		return err
	}
	end, err := syscall.Seek(w.file, 0, io.SeekCurrent)
	if err != nil {
		return err
	}
	return syscall.Ftruncate(w.file, end)
}

// put skips bytes that are all zero: the file is sparse there.
func (w *fileWriter) put(bytes []byte) error {
	if len(bytes) >= holeBytes && isZero(bytes) {
		_, err := syscall.Seek(w.file, int64(len(bytes)), io.SeekCurrent)
		w.endsInHole = true
		return err
	}
	w.endsInHole = w.endsInHole && len(bytes) == 0
	for len(bytes) > 0 {
		count, err := syscall.Write(w.file, bytes)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EINVAL && w.isDirect:
			// The filesystem has another block size, or wrote only part of the block.
			if err := w.stopDirect(); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			bytes = bytes[count:]
		}
	}
	return nil
}

func (w *fileWriter) stopDirect() error {
	if !w.isDirect {
		return nil
	}
	w.isDirect = false
	return setDirect(w.file, false)
}

func (w *fileWriter) drop() {
	if w.buffer != nil {
		_ = syscall.Munmap(w.buffer)
	}
}

func setDirect(file int, isWanted bool) error {
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(file), syscall.F_GETFL, 0)
	if errno != 0 {
		return os.NewSyscallError("fcntl", errno)
	}
	flags &^= syscall.O_DIRECT
	if isWanted {
		flags |= syscall.O_DIRECT
	}
	if _, _, errno = syscall.Syscall(syscall.SYS_FCNTL, uintptr(file), syscall.F_SETFL, flags); errno != 0 {
		return os.NewSyscallError("fcntl", errno)
	}
	return nil
}
