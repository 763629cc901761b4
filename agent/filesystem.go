// Files of the guest, by path: their attributes, lists, and renaming. Contents are in transfer.go.
//
// Everything runs as root: the host's user is the guest's owner. New files belong to the user that commands run as,
// so that commands can change them.

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"bhatti/agent/wire"
)

// fileOperation decodes a request and runs a possibly long operation on a goroutine of its own.
func fileOperation[Request any](s *stream, payload []byte, run func(Request) (any, error)) {
	var request Request
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	go func() {
		var result any
		var err error
		politely(func() { result, err = run(request) })
		if err != nil {
			s.fail(asError(err))
			return
		}
		s.succeed(result)
	}()
}

// transferNiceness leaves a transfer a quarter of a processor that commands compete for: otherwise a command in a
// guest with one processor would take more than twice its time beside a transfer.
const transferNiceness = 5

// politely runs on a low-priority thread of its own. The runtime starts no threads from a locked one, so no thread
// inherits the priority.
func politely(run func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := syscall.Gettid()
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, thread, transferNiceness)
	defer func() { _ = syscall.Setpriority(syscall.PRIO_PROCESS, thread, 0) }()
	run()
}

// absolutePath leaves ".." and links to the kernel, which knows what they mean.
func absolutePath(path string) (string, error) {
	switch {
	case path == "":
		return "", wire.Errorf(wire.Invalid, "a path is needed")
	case strings.IndexByte(path, 0) >= 0:
		return "", wire.Errorf(wire.Invalid, "a path cannot hold a zero byte")
	case path[0] == '/':
		return path, nil
	}
	if image := theImage.Load(); image != nil {
		return workdirOf(image) + "/" + path, nil
	}
	return workspace + "/" + path, nil
}

// fileError maps a kernel error to a code. The message uses the path as the host named it. The code is never
// internal: the guest's files and kernel belong to its owner, and so do their failures.
func fileError(path string, err error) *wire.Error {
	var coded *wire.Error
	if errors.As(err, &coded) {
		return coded
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return wire.Errorf(wire.Unavailable, "%q: %v", path, err)
	}
	if errno == syscall.ENOENT {
		return wire.Errorf(wire.NotFound, "no file %q", path)
	}
	return wire.Errorf(errnoCode(errno), "%q: %v", path, errno)
}

// errnoCode maps the kernel's error to a code for the host. Every number has a code.
func errnoCode(errno syscall.Errno) wire.Code {
	switch errno {
	case syscall.ENOENT, syscall.ESRCH:
		return wire.NotFound
	case syscall.ENOTDIR, syscall.EISDIR, syscall.EINVAL, syscall.ELOOP, syscall.ENAMETOOLONG, syscall.EXDEV,
		syscall.ENXIO, syscall.ENODEV, syscall.EOPNOTSUPP, syscall.EILSEQ, syscall.ENOTTY, syscall.ESPIPE:
		return wire.Invalid
	case syscall.EEXIST, syscall.ENOTEMPTY, syscall.EBUSY, syscall.ETXTBSY:
		return wire.Conflict
	case syscall.EPERM, syscall.EACCES, syscall.EROFS:
		return wire.Forbidden
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.EFBIG, syscall.EMLINK:
		return wire.LimitExceeded
	}
	return wire.Unavailable
}

func parseMode(mode string) (uint32, error) {
	value, err := strconv.ParseUint(mode, 8, 32)
	if err != nil || value > 0o7777 {
		return 0, wire.Errorf(wire.Invalid, "%q is not a mode", mode)
	}
	return uint32(value), nil
}

// fileOwner is the owner of new files unless the host names another.
func fileOwner() account {
	who, err := launchAccount("")
	switch {
	case err == nil:
		return who
	case theImage.Load() != nil:
		return account{uid: userNobody, gid: userNobody}
	}
	return account{uid: userIDFirst, gid: userIDFirst}
}

// accountNames maps ids to names, read once for an operation.
type accountNames struct{ users, groups map[uint32]string }

func readAccountNames() accountNames {
	return accountNames{users: namesByID("/etc/passwd"), groups: namesByID("/etc/group")}
}

func namesByID(path string) map[uint32]string {
	names := map[uint32]string{}
	content, _ := os.ReadFile(path)
	for _, line := range strings.Split(string(content), "\n") {
		fields := strings.SplitN(line, ":", 4)
		if len(fields) < 4 {
			continue
		}
		if id, err := strconv.ParseUint(fields[2], 10, 32); err == nil {
			if _, isNamed := names[uint32(id)]; !isNamed {
				names[uint32(id)] = fields[0]
			}
		}
	}
	return names
}

func nameOf(names map[uint32]string, id uint32) string {
	if name, isNamed := names[id]; isNamed {
		return name
	}
	return strconv.FormatUint(uint64(id), 10)
}

func (n accountNames) describe(name string, about *syscall.Stat_t, target string) wire.FileInfo {
	info := wire.FileInfo{
		Name: name, NameIsLossy: !utf8.ValidString(name), Size: about.Size,
		Mode: fmt.Sprintf("%04o", about.Mode&0o7777), Type: "other",
		Owner: nameOf(n.users, about.Uid), Group: nameOf(n.groups, about.Gid),
		ModifiedUnixMs: about.Mtim.Sec*1000 + about.Mtim.Nsec/1e6,
		// Programs can set a file's mtime, but not its ctime.
		Version: fmt.Sprintf("%x-%x-%x", about.Ino, uint64(about.Ctim.Nano()), about.Size),
	}
	switch about.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		info.Type = "file"
	case syscall.S_IFDIR:
		info.Type = "directory"
	case syscall.S_IFLNK:
		info.Type, info.Target = "symlink", target
	}
	return info
}

func (a *agent) fileStat(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.FileNamed) (any, error) {
		path, err := absolutePath(request.Path)
		if err != nil {
			return nil, err
		}
		var about syscall.Stat_t
		if err := syscall.Lstat(path, &about); err != nil {
			return nil, fileError(request.Path, err)
		}
		target, _ := os.Readlink(path)
		info := readAccountNames().describe(filepath.Base(path), &about, target)
		allocated := about.Blocks * 512
		info.Attributes, info.Allocated = attributesAt(path), &allocated
		return wire.File{File: info}, nil
	})
}

// listBytes is the size of a list message: below the limit of a frame by far more than one entry takes.
const listBytes = 65536

func (a *agent) fileList(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.FileNamed) (any, error) {
		path, err := absolutePath(request.Path)
		if err != nil {
			return nil, err
		}
		folder, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		defer folder.Close()
		listed, err := list(s, folder)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		return listed, nil
	})
}

func list(s *stream, folder *os.File) (wire.Listed, error) {
	names, err := folder.Readdirnames(wire.EntriesMax + 1)
	if err != nil && len(names) > 0 || errors.Is(err, syscall.ENOENT) {
		return wire.Listed{}, err
	}
	listed := wire.Listed{Truncated: len(names) > wire.EntriesMax}
	if listed.Truncated {
		names = names[:wire.EntriesMax]
	}
	sort.Strings(names)
	accounts := readAccountNames()
	batch := []byte(nil)
	flush := func() {
		if len(batch) > 0 {
			s.send(wire.Message, append(batch, "]}"...))
			batch = nil
		}
	}
	for _, name := range names {
		var about syscall.Stat_t
		if err := statAt(int(folder.Fd()), name, &about); err != nil {
			continue // Removed meanwhile.
		}
		target := ""
		if about.Mode&syscall.S_IFMT == syscall.S_IFLNK {
			target, _ = readLinkAt(int(folder.Fd()), name)
		}
		separator := ","
		if len(batch) == 0 {
			separator = `{"entries":[`
		}
		batch = append(batch, separator...)
		batch = append(batch, wire.Encode(accounts.describe(name, &about, target))...)
		listed.Entries++
		if len(batch) >= listBytes {
			flush()
			if s.isCancelled() {
				return listed, errGivenUp
			}
		}
	}
	flush()
	return listed, nil
}

// errGivenUp answers an operation that the host has cancelled, or whose connection is lost.
var errGivenUp = wire.Errorf(wire.Unavailable, "the operation was cancelled")

func (a *agent) fileRemove(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.FileNamed) (any, error) {
		path, err := absolutePath(request.Path)
		if err != nil {
			return nil, err
		}
		if base := filepath.Base(path); base == "/" || base == "." || base == ".." {
			return nil, wire.Errorf(wire.Invalid, "%q cannot be removed", request.Path)
		}
		var about syscall.Stat_t
		if err = syscall.Lstat(path, &about); err == nil {
			if request.Recursive {
				err = os.RemoveAll(path)
			} else {
				err = os.Remove(path)
			}
		}
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		return wire.Empty{}, nil
	})
}

func (a *agent) fileMkdir(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.FileMkdir) (any, error) {
		path, err := absolutePath(request.Path)
		if err != nil {
			return nil, err
		}
		mode := uint32(0o755)
		if request.Mode != nil {
			if mode, err = parseMode(*request.Mode); err != nil {
				return nil, err
			}
		}
		owner := ownerOr(request.Owner)
		if request.Parents {
			if isDirectory(path) {
				return wire.Empty{}, nil
			}
			err = makeParents(path, owner)
		}
		if err == nil {
			err = makeDirectory(path, mode, owner)
		}
		switch {
		case err == nil:
			return wire.Empty{}, nil
		case err == syscall.ENOENT && request.Parents: // Filesystems such as /proc may return anything.
			return nil, wire.Errorf(wire.Forbidden, "nothing can be created at %q", request.Path)
		}
		return nil, fileError(request.Path, err)
	})
}

// makeParents creates the missing directories above a path.
func makeParents(path string, owner account) error {
	parent := filepath.Dir(filepath.Clean(path))
	err := syscall.Access(parent, 0)
	if err != syscall.ENOENT {
		return nil // Using the path reports any other error.
	}
	if err := makeParents(parent, owner); err != nil {
		return err
	}
	if err := makeDirectory(parent, 0o755, owner); err != nil && err != syscall.EEXIST {
		return err
	}
	return nil
}

// makeDirectory sets the mode explicitly, since mkdir applies the umask.
func makeDirectory(path string, mode uint32, owner account) error {
	if err := syscall.Mkdir(path, mode&0o777); err != nil {
		return err
	}
	if err := owner.keep(syscall.Lchown(path, int(owner.uid), int(owner.gid))); err != nil {
		return err
	}
	return syscall.Chmod(path, mode)
}

// keep ignores that only root can change a file's owner: tests run as ordinary users.
func (a account) keep(err error) error {
	if err == syscall.EPERM && syscall.Geteuid() != 0 {
		return nil
	}
	return err
}

func (a *agent) fileMove(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.FileMove) (any, error) {
		from, err := absolutePath(request.From)
		if err != nil {
			return nil, err
		}
		to, err := absolutePath(request.To)
		if err != nil {
			return nil, err
		}
		if isDirectory(to) {
			to = filepath.Join(to, filepath.Base(from))
		}
		err = syscall.Rename(from, to)
		switch err {
		case nil:
			return wire.Empty{}, nil
		case syscall.ENOENT:
			var about syscall.Stat_t
			if syscall.Lstat(from, &about) == nil {
				return nil, wire.Errorf(wire.NotFound, "no directory %q", filepath.Dir(request.To))
			}
		case syscall.EXDEV:
			return nil, wire.Errorf(wire.Invalid, "%q and %q are on different filesystems", request.From, request.To)
		}
		return nil, fileError(request.From, err)
	})
}
