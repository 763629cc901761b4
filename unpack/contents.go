// Keeps the contents of files under numbers in one directory, so that writing them uses no name of a stranger.

package main

import (
	"bytes"
	"io"
	"strconv"
	"syscall"
)

const (
	copyBytes  = 1 << 18
	blockBytes = 4096
	// spaceCheckBytes may be written between two looks at the free space.
	spaceCheckBytes = 64 << 20
)

// The zero value is the content of an empty file.
type content struct {
	number int64
	size   int64
	// stored is the size of its blocks that are not zeros.
	stored int64
}

type contents struct {
	folder int // descriptor
	limits limits
	last   int64
	// bytes is the length of all files so far, with holes, also of those removed.
	bytes int64
	// stored is what the existing ones take.
	stored    int64
	unchecked int64
	buffer    []byte
}

var zeroBlock [blockBytes]byte

// add reads a file to its end.
func (c *contents) add(from io.Reader, size int64) (content, error) {
	if size == 0 {
		return content{}, nil
	}
	if size > c.limits.UnpackedBytes-c.bytes {
		return content{}, refuse("too_many_bytes", "its files have more than %d bytes", c.limits.UnpackedBytes)
	}
	c.last++
	fd, err := openAt(c.folder, strconv.FormatInt(c.last, 10), syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o600)
	if err != nil {
		return content{}, spaceError(err)
	}
	defer syscall.Close(fd)
	if c.buffer == nil {
		c.buffer = make([]byte, copyBytes)
	}
	added := content{number: c.last}
	isCut := false
	for {
		n, err := io.ReadFull(from, c.buffer)
		if n > 0 {
			stored, err := writeData(fd, c.buffer[:n], added.size)
			if err != nil {
				return content{}, spaceError(err)
			}
			isCut = isZeroBlock(c.buffer[(n-1)/blockBytes*blockBytes : n])
			added.size += int64(n)
			added.stored += stored
			if err := c.checkSpace(stored); err != nil {
				return content{}, err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF && added.size == size {
			break
		}
		if err != nil {
			return content{}, err
		}
	}
	c.bytes += added.size
	c.stored += added.stored
	// The file ends in a hole.
	if isCut {
		err = syscall.Ftruncate(fd, added.size)
	}
	return added, spaceError(err)
}

// writeData leaves holes for blocks of zeros, and returns the size of the other blocks.
func writeData(fd int, data []byte, offset int64) (stored int64, err error) {
	for at := 0; at < len(data); {
		end := at
		for end < len(data) && !isZeroBlock(data[end:]) {
			end += blockBytes
		}
		if end > len(data) {
			end = len(data)
		}
		if end == at {
			at += blockBytes
			continue
		}
		stored += int64(end-at+blockBytes-1) / blockBytes * blockBytes
		for at < end {
			n, err := syscall.Pwrite(fd, data[at:end], offset+int64(at))
			if err == syscall.EINTR {
				continue
			}
			if err != nil {
				return 0, err
			}
			at += n
		}
	}
	return stored, nil
}

func isZeroBlock(data []byte) bool {
	if len(data) > blockBytes {
		data = data[:blockBytes]
	}
	return bytes.Equal(data, zeroBlock[:len(data)])
}

func (c *contents) checkSpace(written int64) error {
	if c.unchecked += written; c.unchecked < spaceCheckBytes {
		return nil
	}
	c.unchecked = 0
	return c.needSpace(0)
}

// needSpace refuses if these many bytes more would not leave enough free.
func (c *contents) needSpace(bytes int64) error {
	var about syscall.Statfs_t
	if err := syscall.Fstatfs(c.folder, &about); err != nil {
		return err
	}
	if int64(about.Bavail)*about.Bsize-bytes < c.limits.FreeBytes {
		return refuse("no_space", "the image does not fit in the free space of the host's disk")
	}
	return nil
}

// remove is for contents that no file has any more.
func (c *contents) remove(gone content) {
	if gone.number == 0 {
		return
	}
	c.stored -= gone.stored
	// One that stays takes space until the end, no more.
	_ = removeAt(c.folder, strconv.FormatInt(gone.number, 10), 0)
}

func spaceError(err error) error {
	switch err {
	case syscall.ENOSPC, syscall.EDQUOT:
		return refuse("no_space", "the image does not fit in the free space of the host's disk")
	case syscall.EFBIG:
		return refuse("too_many_bytes", "a file is longer than the limit")
	}
	return err
}
