// Writing without zeros: where enough of them come, a file gets a hole.

package main

import (
	"bytes"
	"syscall"
)

// holeBytes is the smallest run of zeros worth skipping.
const holeBytes = 16384

var zeros [copyBytes]byte

func isZero(content []byte) bool {
	for len(content) > len(zeros) {
		if !bytes.Equal(content[:len(zeros)], zeros[:]) {
			return false
		}
		content = content[len(zeros):]
	}
	return bytes.Equal(content, zeros[:len(content)])
}

// zerosBefore returns how much of the content comes before its first run of zeros, and how long that is.
func zerosBefore(content []byte) (before, length int) {
	for at := 0; at+holeBytes <= len(content); at += holeBytes {
		end := at
		for end+holeBytes <= len(content) && isZero(content[end:end+holeBytes]) {
			end += holeBytes
		}
		if end > at {
			return at, end - at
		}
	}
	return len(content), 0
}

func writeAt(fd int, content []byte, offset int64) error {
	for len(content) > 0 {
		before, hole := zerosBefore(content)
		if err := writeAllAt(fd, content[:before], offset); err != nil {
			return err
		}
		content, offset = content[before+hole:], offset+int64(before+hole)
	}
	return nil
}

func writeAllAt(fd int, content []byte, offset int64) error {
	for len(content) > 0 {
		n, err := syscall.Pwrite(fd, content, offset)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		content, offset = content[n:], offset+int64(n)
	}
	return nil
}
