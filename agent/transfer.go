// Contents of files, in either direction.
//
// A written file has no name until all of it is on the disk; then it gets its name.

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"bhatti/agent/wire"
)

func (a *agent) fileRead(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.FileRead) (any, error) {
		path, err := absolutePath(request.Path)
		if err != nil {
			return nil, err
		}
		if request.Offset < 0 || request.Limit != nil && *request.Limit < 0 {
			return nil, wire.Errorf(wire.Invalid, "offset and limit must not be below zero")
		}
		// Without O_NONBLOCK opening a pipe would block.
		file, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		defer syscall.Close(file)
		var about syscall.Stat_t
		if err := syscall.Fstat(file, &about); err != nil {
			return nil, fileError(request.Path, err)
		}
		if about.Mode&syscall.S_IFMT != syscall.S_IFREG {
			return nil, notRegular(request.Path, &about)
		}
		s.message(wire.File{File: readAccountNames().describe(filepath.Base(path), &about, "")})
		if about.Size < sharedBytesMin || request.Limit != nil && *request.Limit < sharedBytesMin {
			request.Shared = nil
		}
		out := a.newOutgoing(s, request.Shared)
		defer out.drop()
		count, err := sendFile(out, file, request)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		if request.Limit == nil && request.Offset+count < about.Size && !isKernelFilesystem(file) {
			return nil, becameShorter(request.Path)
		}
		return wire.FileBytes{Bytes: count}, nil
	})
}

// notRegular names the kind of file that is there instead of a regular one.
func notRegular(path string, about *syscall.Stat_t) *wire.Error {
	if about.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return wire.Errorf(wire.Invalid, "%q is a directory", path)
	}
	return wire.Errorf(wire.Invalid, "%q is not a regular file", path)
}

// becameShorter reports a file that changed while it was read, so that neither the old nor the new content was read
// completely.
func becameShorter(path string) error {
	return wire.Errorf(wire.Conflict, "%q became shorter while it was read", path)
}

func sendFile(out *outgoing, file int, request wire.FileRead) (int64, error) {
	sent := int64(0)
	for {
		wanted := int64(wire.WindowBytes)
		if request.Limit != nil && *request.Limit-sent < wanted {
			wanted = *request.Limit - sent
		}
		if wanted == 0 {
			return sent, nil
		}
		room := out.room(int(wanted))
		if room == nil {
			return sent, errGivenUp
		}
		n, err := syscall.Pread(file, room, request.Offset+sent)
		if n < 0 {
			n = 0
		}
		if out.send(n) != nil {
			return sent, errGivenUp
		}
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return sent, err
		case n == 0:
			return sent, nil
		}
		sent += int64(n)
	}
}

func (a *agent) fileWrite(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.FileWrite) (any, error) {
		target, err := findTarget(request)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		count, err := target.receive(s, request)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		return wire.FileBytes{Bytes: count}, nil
	})
}

// target is the place of a file being written.
type target struct {
	path  string // no link
	mode  uint32
	owner account
	// attributes are those of the replaced file and of the request.
	attributes map[string][]byte
}

// linksMax is how many links the kernel follows.
const linksMax = 40

// findTarget checks everything that can be checked before the first byte comes.
func findTarget(request wire.FileWrite) (target, error) {
	t := target{mode: 0o644, owner: ownerOr(request.Owner)}
	if request.Size != nil && *request.Size > wire.FileBytesMax {
		return t, errFileTooLarge
	}
	path, err := absolutePath(request.Path)
	if err != nil {
		return t, err
	}
	if path[len(path)-1] == '/' {
		return t, wire.Errorf(wire.Invalid, "%q is the name of a directory", request.Path)
	}
	if request.Parents {
		if err := makeParents(path, t.owner); err != nil {
			return t, err
		}
	}
	var about syscall.Stat_t
	for links := 0; ; links++ {
		err = syscall.Lstat(path, &about)
		if err != nil || about.Mode&syscall.S_IFMT != syscall.S_IFLNK {
			break
		}
		if links == linksMax {
			return t, syscall.ELOOP
		}
		next, err := os.Readlink(path)
		if err != nil {
			return t, err
		}
		if !filepath.IsAbs(next) {
			next = filepath.Dir(path) + "/" + next
		}
		path = next
	}
	t.path = path
	switch {
	case err == nil && about.Mode&syscall.S_IFMT != syscall.S_IFREG:
		return t, notRegular(request.Path, &about)
	case err == nil:
		t.mode = about.Mode & 0o7777
		if request.Owner == nil {
			t.owner = account{uid: about.Uid, gid: about.Gid}
		}
	case err != syscall.ENOENT:
		return t, err
	}
	if err := checkAttributes(sortedNames(request.Attributes)); err != nil {
		return t, err
	}
	if t.attributes = attributesAt(path); err == syscall.ENOENT || t.attributes == nil {
		t.attributes = request.Attributes
	} else {
		for name, value := range request.Attributes {
			t.attributes[name] = value
		}
	}
	if request.Mode != nil {
		t.mode, err = parseMode(*request.Mode)
		return t, err
	}
	return t, nil
}

var errFileTooLarge = wire.Errorf(wire.TooLarge, "a file has at most %d bytes", wire.FileBytesMax)

// receive writes the bytes that the host sends and gives the file its name.
func (t target) receive(s *stream, request wire.FileWrite) (int64, error) {
	// The kernel resolves the path: the meaning of ".." depends on links.
	base := strings.LastIndexByte(t.path, '/') + 1
	folder, err := syscall.Open(t.path[:base], flagPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer syscall.Close(folder)
	file, err := makeNameless(folder)
	if err != nil {
		return 0, err
	}
	defer file.drop()
	count, err := receiveFile(s, file.fd, request.Size)
	if err == nil {
		err = t.owner.keep(syscall.Fchown(file.fd, int(t.owner.uid), int(t.owner.gid)))
	}
	if err == nil {
		err = syscall.Fchmod(file.fd, t.mode)
	}
	if err == nil {
		err = setAttributes(file.fd, t.attributes)
	}
	if err == nil {
		err = syscall.Fsync(file.fd)
	}
	if err == nil {
		err = file.give(t.path[base:])
	}
	return count, err
}

// receiveFile writes the stream's input until its end.
func receiveFile(s *stream, file int, size *int64) (int64, error) {
	count := int64(0)
	writer := newFileWriter(file, size)
	defer writer.drop()
	for bytes := s.takeInput(); bytes != nil; bytes = s.takeInput() {
		count += int64(len(bytes))
		switch {
		case count > wire.FileBytesMax:
			return count, errFileTooLarge
		case size != nil && count > *size:
			return count, wire.Errorf(wire.Invalid, "more came than the %d bytes that were announced", *size)
		}
		if err := writer.write(bytes, s.giveBack); err != nil {
			return count, err
		}
	}
	if err := writer.finish(); err != nil {
		return count, err
	}
	switch {
	case !s.hasWholeInput():
		return count, errGivenUp
	case size != nil && count < *size:
		return count, wire.Errorf(wire.Invalid, "%d bytes came, %d were announced", count, *size)
	}
	return count, nil
}
