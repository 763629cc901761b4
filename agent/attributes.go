// Extended attributes of files: those that users may set (user.*), with any value.

package main

import (
	"bytes"
	"sort"
	"strings"
	"syscall"
	"unsafe"

	"bhatti/agent/wire"
)

const (
	attributePrefix = "user."
	// attributesMax and attributeBytesMax limit what is read of one file. ext4 has room for 4 KiB.
	attributesMax     = 64
	attributeBytesMax = 65536
	// attributeNameMax is the kernel's limit.
	attributeNameMax = 255
	// paxAttribute is how archives name an attribute, since star did.
	paxAttribute = "SCHILY.xattr."
)

// isUserAttribute and isFileAttribute choose attributes: those that users may set, and all that belong to a file's own
// content wherever it is copied.
func isUserAttribute(name string) bool { return strings.HasPrefix(name, attributePrefix) }

func isFileAttribute(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return isUserAttribute(name)
}

func wantedAttributes(isExact bool) func(name string) bool {
	if isExact {
		return isFileAttribute
	}
	return isUserAttribute
}

// attributesOf returns the attributes of an open file. Filesystems without them have none.
func attributesOf(fd int, isWanted func(name string) bool) map[string][]byte {
	return readAttributes(isWanted,
		func(list []byte) (uintptr, syscall.Errno) {
			count, _, errno := syscall.Syscall(syscall.SYS_FLISTXATTR, uintptr(fd), uintptr(startOf(list)), uintptr(len(list)))
			return count, errno
		},
		func(name *byte, value []byte) (uintptr, syscall.Errno) {
			count, _, errno := syscall.Syscall6(syscall.SYS_FGETXATTR, uintptr(fd), uintptr(unsafe.Pointer(name)),
				uintptr(startOf(value)), uintptr(len(value)), 0, 0)
			return count, errno
		})
}

// attributesAt returns those of a path; of a link, not of its target.
func attributesAt(path string) map[string][]byte {
	file, err := syscall.BytePtrFromString(path)
	if err != nil {
		return nil
	}
	return readAttributes(isUserAttribute,
		func(list []byte) (uintptr, syscall.Errno) {
			count, _, errno := syscall.Syscall(syscall.SYS_LLISTXATTR, uintptr(unsafe.Pointer(file)), uintptr(startOf(list)),
				uintptr(len(list)))
			return count, errno
		},
		func(name *byte, value []byte) (uintptr, syscall.Errno) {
			count, _, errno := syscall.Syscall6(syscall.SYS_LGETXATTR, uintptr(unsafe.Pointer(file)),
				uintptr(unsafe.Pointer(name)), uintptr(startOf(value)), uintptr(len(value)), 0, 0)
			return count, errno
		})
}

func readAttributes(
	isWanted func(name string) bool, list func([]byte) (uintptr, syscall.Errno), get func(*byte, []byte) (uintptr, syscall.Errno),
) map[string][]byte {
	size, errno := list(nil)
	if errno != 0 || size == 0 {
		return nil
	}
	buffer := make([]byte, attributeBytesMax)
	if size, errno = list(buffer); errno != 0 {
		return nil
	}
	var found map[string][]byte
	left := attributeBytesMax
	for _, one := range bytes.Split(buffer[:size], []byte{0}) {
		name, err := syscall.BytePtrFromString(string(one))
		if err != nil || !isWanted(string(one)) {
			continue
		}
		value := make([]byte, left)
		count, errno := get(name, value)
		if errno != 0 {
			continue // Removed meanwhile, or too large.
		}
		if left -= int(count); left <= 0 || len(found) == attributesMax {
			break
		}
		if found == nil {
			found = map[string][]byte{}
		}
		found[string(one)] = append([]byte{}, value[:count]...)
	}
	return found
}

func startOf(buffer []byte) unsafe.Pointer {
	if len(buffer) == 0 {
		return nil
	}
	return unsafe.Pointer(&buffer[0])
}

func setAttribute(fd int, name string, value []byte) error {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall6(syscall.SYS_FSETXATTR, uintptr(fd), uintptr(unsafe.Pointer(pointer)),
		uintptr(startOf(value)), uintptr(len(value)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func removeAttribute(fd int, name string) error {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(syscall.SYS_FREMOVEXATTR, uintptr(fd), uintptr(unsafe.Pointer(pointer)), 0)
	if errno != 0 && errno != syscall.ENODATA {
		return errno
	}
	return nil
}

func setAttributes(fd int, attributes map[string][]byte) error {
	for _, name := range sortedNames(attributes) {
		if err := setAttribute(fd, name, attributes[name]); err != nil {
			return attributeError(name, err)
		}
	}
	return nil
}

func sortedNames(attributes map[string][]byte) []string {
	names := make([]string, 0, len(attributes))
	for name := range attributes {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func attributeError(name string, err error) error {
	errno, isErrno := err.(syscall.Errno)
	switch {
	case !isErrno:
		return err
	case errno == syscall.ENOSPC || errno == syscall.E2BIG || errno == syscall.ERANGE:
		return wire.Errorf(wire.LimitExceeded, "the filesystem has no room for attribute %q", name)
	case errno == syscall.EOPNOTSUPP:
		return wire.Errorf(wire.Invalid, "the filesystem has no attribute %q", name)
	}
	return err
}

func checkAttributes(names []string) error {
	for _, name := range names {
		if !strings.HasPrefix(name, attributePrefix) || len(name) == len(attributePrefix) ||
			len(name) > attributeNameMax || strings.ContainsAny(name, "\x00=") {
			return wire.Errorf(wire.Invalid, "%q is no attribute that a user may set: user.NAME, at most %d bytes", name,
				attributeNameMax)
		}
	}
	if len(names) > attributesMax {
		return wire.Errorf(wire.Invalid, "a file has at most %d attributes here", attributesMax)
	}
	return nil
}

// fileAttributes changes attributes of a file; a link is followed.
func (a *agent) fileAttributes(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.FileAttributes) (any, error) {
		path, err := absolutePath(request.Path)
		if err != nil {
			return nil, err
		}
		if err := checkAttributes(append(sortedNames(request.Set), request.Remove...)); err != nil {
			return nil, err
		}
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		defer syscall.Close(fd)
		for _, name := range request.Remove {
			if err := removeAttribute(fd, name); err != nil {
				return nil, fileError(request.Path, attributeError(name, err))
			}
		}
		if err := setAttributes(fd, request.Set); err != nil {
			return nil, fileError(request.Path, err)
		}
		return wire.Empty{}, nil
	})
}

// packAttributes adds a file's attributes to its header in an archive.
func packAttributes(fd int, records map[string]string, isWanted func(name string) bool) map[string]string {
	for name, value := range attributesOf(fd, isWanted) {
		if strings.ContainsAny(name, "=") {
			continue // Archives cannot hold such a name.
		}
		if records == nil {
			records = map[string]string{}
		}
		records[paxAttribute+name] = string(value)
	}
	return records
}

// unpackAttributes sets those that an archive has. Where the filesystem has none the file is worth having without.
func unpackAttributes(fd int, records map[string]string, isWanted func(name string) bool) error {
	attributes := map[string][]byte{}
	for key, value := range records {
		if name := strings.TrimPrefix(key, paxAttribute); name != key && isWanted(name) {
			attributes[name] = []byte(value)
		}
	}
	for _, name := range sortedNames(attributes) {
		if err := setAttribute(fd, name, attributes[name]); err != nil && err != syscall.EOPNOTSUPP {
			return attributeError(name, err)
		}
	}
	return nil
}
